"""The page of `fmnist demo` in a real browser."""

import base64
import shutil
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright
from test_server import PICTURE, FakeClassifier, drawing, encode, serving

CHROMIUM = shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("no chromium on this machine; `apt-get install chromium` installs it", allow_module_level=True)

OFFLINE = [
    "--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-quic",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
"""Options that keep Chromium itself from using the network."""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def url(classifier, manifest, small):
    with serving(classifier, manifest, small) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def open_page(browser):
    """Open an address in a new window. Afterwards, check that no request left this machine and no script failed."""
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


def add_file(page, how, name="garment.png", mime_type="image/png", content=PICTURE):
    """Choose, drop or paste a file."""
    if how == "choose":
        page.set_input_files("#file", {"name": name, "mimeType": mime_type, "buffer": content})
        return
    page.evaluate(
        """([how, name, type, content]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
            transfer.items.add(new File([bytes], name, { type }));
            document.querySelector("main").dispatchEvent(how === "drop"
                ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
        }""",
        [how, name, mime_type, base64.b64encode(content).decode()],
    )


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_prediction_and_conversion_are_shown(open_page, url, classifier, how):
    page = open_page(url)
    add_file(page, how)
    prediction = classifier.classify(PICTURE)
    bars = page.locator("#bars li")
    expect(bars).to_have_count(10)
    for index, candidate in enumerate(prediction.top):
        expect(bars.nth(index)).to_contain_text(candidate.label)
        expect(bars.nth(index)).to_contain_text(f"{100 * candidate.probability:.1f} %")
    expect(page.get_by_role("status")).to_contain_text(prediction.label)
    steps = page.locator("#steps img")
    expect(steps).to_have_count(4)
    last = steps.last
    expect(last).to_have_js_property("naturalWidth", 28)
    expect(last).to_have_css("image-rendering", "pixelated")
    assert last.bounding_box()["width"] > 200


UNUSABLE_FILES = {
    "text": (("notes.txt", "text/plain", b"hello"), "“notes.txt” is not a picture; choose a JPEG, PNG or WebP file."),
    "text named png": (("notes.png", "image/png", b"hello"), "“notes.png” is "),
    "unknown type": (("a $& b.xyz", "", b"hello"), "“a $& b.xyz” is "),
}


@pytest.mark.parametrize("how", ["choose", "drop"])
@pytest.mark.parametrize("case", UNUSABLE_FILES)
def test_unusable_file_is_explained(open_page, url, case, how):
    file, words = UNUSABLE_FILES[case]
    page = open_page(url)
    add_file(page, "choose")
    expect(page.locator("#bars li")).to_have_count(10)
    add_file(page, how, *file)
    status = page.get_by_role("status")
    expect(status).to_contain_text("That did not work")
    expect(status).to_contain_text(words)
    expect(page.locator("#bars li")).to_have_count(0)
    add_file(page, "choose")
    expect(page.locator("#bars li")).to_have_count(10)


def test_text_and_large_files_are_not_sent(open_page, url):
    page = open_page(url)
    add_file(page, "drop", "notes.txt", "text/plain", b"hello")
    expect(page.get_by_role("status")).to_contain_text("not a picture")
    page.evaluate("classify(new File([new Uint8Array(10_000_001)], 'large.png', { type: 'image/png' }))")
    expect(page.get_by_role("status")).to_contain_text("“large.png” is larger than 10 MB;")
    assert not [address for address in open_page.requests if "classify" in address]


def test_paste_or_drop_without_a_file_is_explained(open_page, url):
    page = open_page(url)
    for kind, words in (("paste", "The clipboard holds no picture."), ("drop", "Nothing dropped here is a file.")):
        page.evaluate(
            """(kind) => dispatchEvent(kind === "drop" ? new DragEvent(kind, { dataTransfer: new DataTransfer() })
                : new ClipboardEvent(kind, { clipboardData: new DataTransfer() }))""",
            kind,
        )
        expect(page.get_by_role("status")).to_contain_text(words)


def test_page_works_by_keyboard(open_page, url):
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
    expect(page.get_by_role("status")).to_contain_text("The correct class is Pullover.")


def test_samples_are_hidden_if_there_are_none(open_page):
    with serving(FakeClassifier()) as port:
        page = open_page(f"http://127.0.0.1:{port}")
        expect(page.get_by_text("SHA-256")).to_be_visible()
        expect(page.locator("#try")).to_be_hidden()


def test_stopped_server_is_reported(open_page):
    with serving(FakeClassifier()) as port:
        page = open_page(f"http://127.0.0.1:{port}")
        expect(page.get_by_text("SHA-256")).to_be_visible()
    add_file(page, "choose")
    expect(page.get_by_role("status")).to_contain_text("Is “fmnist demo” still running?")


REASON = "between Coat and Shirt"
VERDICTS = {
    "accepted": ((0.91, True, None), ["Prediction", "Coat, 52.0 %", "Confidence 0.910."]),
    "not accepted": (
        (0.31, False, REASON),
        ["Not sure", "Between Coat and Shirt. Most likely Coat, 52.0 %. Confidence 0.310 is below the threshold."],
    ),
    "no rejection rule": ((None, None, None), ["Prediction", "Coat, 52.0 %", "This model never says “not sure”."]),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict_and_reason_are_shown(open_page, case):
    verdict, words = VERDICTS[case]
    with serving(FakeClassifier(*verdict)) as port:
        page = open_page(f"http://127.0.0.1:{port}")
        add_file(page, "choose")
        for part in words:
            expect(page.get_by_role("status")).to_contain_text(part)


CONTRAST = """() => {
    const channels = (text) => text.match(/[\\d.]+/g).map(Number);
    const luminance = (text) => channels(text).slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const background = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return channels(color)[3] === 0 ? background(element.parentElement) : color;
    };
    const texts = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
        && [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
    return texts.map((element) => {
        const colors = [getComputedStyle(element).color, background(element)];
        const [low, high] = colors.map(luminance).sort((a, b) => a - b);
        return [(high + 0.05) / (low + 0.05), element.textContent.trim()];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("verdict", [(0.91, True, None), (0.31, False, REASON)], ids=["accepted", "not accepted"])
def test_page_fits_a_narrow_phone_and_text_has_contrast(open_page, small, scheme, verdict):
    with serving(FakeClassifier(*verdict), dataset=small) as port:
        page = open_page(
            f"http://127.0.0.1:{port}", viewport={"width": 360, "height": 740}, color_scheme=scheme,
            has_touch=True, is_mobile=True, reduced_motion="reduce",
        )  # fmt: skip
        expect(page.locator("#samples button")).to_have_count(10)
        add_file(page, "choose", content=encode(drawing(1_200, 500), "JPEG"), mime_type="image/jpeg")
        expect(page.locator("#bars li")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        contrasts = page.evaluate(CONTRAST)
        assert len(contrasts) > 15
        assert [text for contrast, text in contrasts if contrast < 4.5] == []
        expect(page.locator(".bars b").first).to_have_css("transition-duration", "0s")
        expect(page.get_by_text("Take a photo")).to_be_visible()
        assert page.locator("#camera").get_attribute("capture") == "environment"


def test_footer_links_to_the_openapi_document(open_page, url):
    page = open_page(url)
    page.get_by_role("link").click()
    expect(page).to_have_url(f"{url}/openapi.json")
