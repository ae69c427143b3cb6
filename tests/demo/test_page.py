"""The page of `fmnist demo` in a real browser."""

import base64
import shutil
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright
from test_server import PICTURE, drawing, encode, serving

from fmnist.inference import photo

CHROMIUM = shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("no chromium on this machine; `apt-get install chromium` brings it", allow_module_level=True)

QUIET = [
    "--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-quic",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
"""What keeps Chromium itself from asking the network."""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@pytest.fixture(scope="module")
def url(classifier, small_run, small):
    with serving(classifier, small_run.manifest(), small) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def open_page(browser):
    """Open an address in a fresh window. Afterwards: no request has left this machine, no script has failed."""
    contexts, requests, problems = [], [], []

    def open_address(address, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(address)
        return page

    open_address.requests = requests
    yield open_address
    for context in contexts:
        context.close()
    assert {urlsplit(address).hostname for address in requests if not address.startswith("data:")} == {"127.0.0.1"}
    assert [text for text in problems if not text.startswith("Failed to load resource")] == []


def give(page, how, name="garment.png", kind="image/png", content=PICTURE):
    """Give the page a file, as a person would."""
    if how == "choose":
        page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})
        return
    page.evaluate(
        """([how, name, kind, content]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
            transfer.items.add(new File([bytes], name, { type: kind }));
            document.querySelector("main").dispatchEvent(how === "drop"
                ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
        }""",
        [how, name, kind, base64.b64encode(content).decode()],
    )


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_a_picture_is_answered(open_page, url, classifier, how):
    page = open_page(url)
    give(page, how)
    answer = classifier.answer(photo.convert(photo.read(PICTURE)))
    bars = page.locator("#bars li")
    expect(bars).to_have_count(10)
    for number, candidate in enumerate(answer["top"]):
        expect(bars.nth(number)).to_contain_text(candidate["label"])
        expect(bars.nth(number)).to_contain_text(f"{100 * candidate['probability']:.1f} %")
    expect(page.get_by_role("status")).to_contain_text(answer["label"])
    steps = page.locator("#steps img")
    expect(steps).to_have_count(4)
    last = steps.last
    expect(last).to_have_js_property("naturalWidth", 28)
    expect(last).to_have_css("image-rendering", "pixelated")
    assert last.bounding_box()["width"] > 200


NO_PICTURES = {
    "a text file": (("notes.txt", "text/plain", b"hello"), "“notes.txt” is not a picture. JPEG, PNG and WebP are."),
    "a text named png": (("notes.png", "image/png", b"hello"), "no picture"),
    "a file of no known type": (("notes.of-mine", "", b"hello"), "picture"),
}


@pytest.mark.parametrize("how", ["choose", "drop"])
@pytest.mark.parametrize("case", NO_PICTURES)
def test_no_picture_is_refused_with_a_sentence(open_page, url, case, how):
    file, words = NO_PICTURES[case]
    page = open_page(url)
    give(page, "choose")
    expect(page.locator("#bars li")).to_have_count(10)
    give(page, how, *file)
    status = page.get_by_role("status")
    expect(status).to_contain_text("That did not work")
    expect(status).to_contain_text(words)
    expect(page.locator("#bars li")).to_have_count(0)
    give(page, "choose")  # and all is well again
    expect(page.locator("#bars li")).to_have_count(10)


def test_text_and_what_is_too_large_are_not_even_sent(open_page, url):
    page = open_page(url)
    give(page, "drop", "notes.txt", "text/plain", b"hello")
    expect(page.get_by_role("status")).to_contain_text("not a picture")
    page.evaluate("ask(new File([new Uint8Array(10_000_001)], 'large.png', { type: 'image/png' }))")
    expect(page.get_by_role("status")).to_contain_text("“large.png” is larger than 10 MB.")
    assert not [address for address in open_page.requests if "classify" in address]


def test_a_paste_or_drop_without_a_file_says_so(open_page, url):
    page = open_page(url)
    for kind, words in (("paste", "The clipboard holds no picture."), ("drop", "holds no file.")):
        page.evaluate(
            """(kind) => dispatchEvent(kind === "drop" ? new DragEvent(kind, { dataTransfer: new DataTransfer() })
                : new ClipboardEvent(kind, { clipboardData: new DataTransfer() }))""",
            kind,
        )
        expect(page.get_by_role("status")).to_contain_text(words)


def test_all_by_keyboard(open_page, url):
    page = open_page(url)
    garment = {"name": "garment.png", "mimeType": "image/png", "buffer": PICTURE}
    page.on("filechooser", lambda chooser: chooser.set_files(garment))
    expect(page.locator("#samples button")).to_have_count(10)
    page.keyboard.press("Tab")
    button = page.locator("label.button").first
    assert button.evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#bars li")).to_have_count(10)
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.parentElement.parentElement.id") == "samples"
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("In truth it is: Pullover.")


def test_samples_are_hidden_where_there_are_none(open_page, classifier, small_run):
    with serving(classifier, small_run.manifest()) as port:
        page = open_page(f"http://127.0.0.1:{port}")
        expect(page.get_by_text("SHA-256")).to_be_visible()
        expect(page.locator("#trials")).to_be_hidden()


def test_a_server_that_has_gone_is_said(open_page, classifier, small_run):
    with serving(classifier, small_run.manifest()) as port:
        page = open_page(f"http://127.0.0.1:{port}")
        expect(page.get_by_text("SHA-256")).to_be_visible()
    give(page, "choose")
    expect(page.get_by_role("status")).to_contain_text("Is “fmnist demo” still running?")


class Fixed:
    """In place of a classifier: one answer for every picture."""

    name, class_names, sha256, acceptance = "fixed", ("Coat", "Shirt"), "0" * 64, None

    def __init__(self, accepted, reason):
        self.verdict = {"acceptance": 0.31, "accepted": accepted, "reason": reason}

    def answer(self, _):
        top = [{"label": "Coat", "class": 0, "probability": 0.52}, {"label": "Shirt", "class": 1, "probability": 0.48}]
        return {**top[0], **self.verdict, "top": top}


BETWEEN = "between Coat and Shirt"
VERDICTS = {
    "accepted": (Fixed(True, None), ["It says", "Coat, 52.0 %"]),
    "not accepted": (Fixed(False, BETWEEN), ["Not sure", "Between Coat and Shirt. Likeliest is Coat, 52.0 %."]),
    "no threshold": (Fixed(None, None), ["It says", "Coat, 52.0 %", "This model has no threshold"]),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_the_verdict_and_its_reason_are_shown(open_page, small_run, case):
    fixed, words = VERDICTS[case]
    with serving(fixed, small_run.manifest()) as port:
        page = open_page(f"http://127.0.0.1:{port}")
        give(page, "choose")
        for part in words:
            expect(page.get_by_role("status")).to_contain_text(part)


CONTRAST = """() => {
    const channels = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (text) => channels(text).slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (element) => {
        const colour = getComputedStyle(element).backgroundColor;
        return channels(colour)[3] === 0 ? ground(element.parentElement) : colour;
    };
    const texts = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
        && [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
    return texts.map((element) => {
        const [low, high] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => a - b);
        return [(high + 0.05) / (low + 0.05), element.textContent.trim()];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("accepted", [True, False])
def test_a_narrow_phone_scrolls_only_downwards_and_all_text_can_be_read(open_page, small_run, small, scheme, accepted):
    with serving(Fixed(accepted, BETWEEN), small_run.manifest(), small) as port:
        page = open_page(
            f"http://127.0.0.1:{port}", viewport={"width": 360, "height": 740}, color_scheme=scheme,
            has_touch=True, is_mobile=True, reduced_motion="reduce",
        )  # fmt: skip
        expect(page.locator("#samples button")).to_have_count(10)
        give(page, "choose", content=encode(drawing(1_200, 500), "JPEG"), kind="image/jpeg")
        expect(page.locator("#bars li")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        contrasts = page.evaluate(CONTRAST)
        assert len(contrasts) > 15
        assert [text for contrast, text in contrasts if contrast < 4.5] == []
        expect(page.locator(".bars b").first).to_have_css("transition-duration", "0s")
        expect(page.get_by_text("Take a photo")).to_be_visible()
        assert page.locator("#camera").get_attribute("capture") == "environment"


def test_the_documentation_needs_no_other_host(open_page, url):
    page = open_page(f"{url}/docs")
    expect(page.locator(".opblock")).to_have_count(4)
    assert any(address.endswith("swagger-ui-bundle.js") for address in open_page.requests)
