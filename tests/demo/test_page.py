"""The page of `fmnist demo` in a real browser."""

import base64
import shutil
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from test_server import PICTURE, FakeClassifier, SlowClassifier, classify, drawing, encode, serving

from fmnist.demo.api_schema import Limits

CHROMIUM = shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("no chromium on this machine; `apt-get install chromium` installs it", allow_module_level=True)

OFFLINE = [
    "--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-quic",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
"""Options that keep Chromium itself from using the network."""
WEBCAM = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
"""Options that give Chromium a webcam which films a test pattern, and that allow its use."""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE + WEBCAM)
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


def as_file(name="garment.png", mime_type="image/png", content=PICTURE):
    return {"name": name, "mimeType": mime_type, "buffer": content}


def add_file(page, how, name="garment.png", mime_type="image/png", content=PICTURE):
    """Choose, drop or paste a file."""
    if how == "choose":
        page.set_input_files("#file", as_file(name, mime_type, content))
        return
    drop_files(page, [(name, mime_type, content)], how)


def drop_files(page, files, how="drop"):
    """Drop or paste files, each a name, type and content."""
    page.evaluate(
        """([how, files]) => {
            const transfer = new DataTransfer();
            for (const [name, type, content] of files) {
                const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type }));
            }
            document.querySelector("main").dispatchEvent(how === "drop"
                ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
        }""",
        [how, [(name, mime_type, base64.b64encode(content).decode()) for name, mime_type, content in files]],
    )


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_prediction_and_conversion_are_shown(open_page, url, classifier, how):
    page = open_page(url)
    add_file(page, how)
    prediction = classifier.classify(PICTURE)
    bars = page.locator(".bars li")
    expect(bars).to_have_count(10)
    for index, candidate in enumerate(prediction.top):
        expect(bars.nth(index)).to_contain_text(candidate.label)
        expect(bars.nth(index)).to_contain_text(f"{100 * candidate.probability:.1f} %")
    expect(page.get_by_role("status")).to_contain_text(prediction.label)
    steps = page.locator(".steps img")
    expect(steps).to_have_count(4)
    last = steps.last
    expect(last).to_have_js_property("naturalWidth", 28)
    expect(last).to_have_css("image-rendering", "pixelated")
    assert last.bounding_box()["width"] > 200


UNUSABLE_FILES = {
    "text": (
        ("notes.txt", "text/plain", b"hello"),
        "“notes.txt” is not a picture; choose a picture file, such as JPEG or PNG.",
    ),
    "text named png": (("notes.png", "image/png", b"hello"), "“notes.png” is "),
    "unknown type": (("a $& b.xyz", "", b"hello"), "“a $& b.xyz” is "),
}


@pytest.mark.parametrize("how", ["choose", "drop"])
@pytest.mark.parametrize("case", UNUSABLE_FILES)
def test_unusable_file_is_explained(open_page, url, case, how):
    file, words = UNUSABLE_FILES[case]
    page = open_page(url)
    add_file(page, "choose")
    expect(page.locator(".bars li")).to_have_count(10)
    add_file(page, how, *file)
    status = page.get_by_role("status")
    expect(status).to_contain_text("That did not work")
    expect(status).to_contain_text(words)
    expect(page.locator(".bars li")).to_have_count(0)
    add_file(page, "choose")
    expect(page.locator(".bars li")).to_have_count(10)


def test_text_and_large_files_are_not_sent(open_page, url):
    page = open_page(url)
    add_file(page, "drop", "notes.txt", "text/plain", b"hello")
    expect(page.get_by_role("status")).to_contain_text("not a picture")
    page.evaluate("classify([new File([new Uint8Array(10_000_001)], 'large.png', { type: 'image/png' })])")
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
    page.on("filechooser", lambda chooser: chooser.set_files(as_file()))
    expect(page.locator("#samples button")).to_have_count(10)
    page.keyboard.press("Tab")
    button = page.locator("label.button").first
    assert button.evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator(".bars li")).to_have_count(10)
    page.keyboard.press("Tab")
    expect(page.locator("#webcam")).to_be_focused()
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


def test_portrait_picture_is_shown_whole(open_page, url):
    page = open_page(url)
    tall = Image.new("RGB", (300, 1_200), (230, 220, 200))
    tall.paste((30, 40, 90), (60, 100, 240, 1_100))
    add_file(page, "choose", content=encode(tall))
    pictures = page.locator(".steps img")
    expect(pictures).to_have_count(4)
    for index in range(4):
        picture = pictures.nth(index)
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => getComputedStyle(image).objectFit") == "contain"
        outside = picture.evaluate(
            """image => {
                const [inner, outer] = [image, image.parentElement].map((node) => node.getBoundingClientRect());
                const sides = [outer.top - inner.top, outer.left - inner.left];
                return [...sides, inner.bottom - outer.bottom, inner.right - outer.right];
            }"""
        )
        assert max(outside) <= 0
    assert pictures.first.evaluate("image => image.naturalHeight / image.naturalWidth") == pytest.approx(4, rel=0.05)


def test_classes_are_listed_before_the_first_picture(open_page, url, classifier):
    page = open_page(url)
    classes = page.locator("#classes li")
    expect(classes).to_have_text(["It knows 10 classes:", *classifier.class_names])
    expect(classes.last).to_be_visible()


def test_image_of_the_data_set_is_shown_once(open_page, url):
    page = open_page(url)
    page.locator("#samples button").nth(1).click()
    expect(page.locator(".bars li")).to_have_count(10)
    expect(page.locator(".steps img")).to_have_count(1)
    expect(page.locator(".steps figcaption")).to_contain_text("used as it is")


@pytest.mark.parametrize("how", ["choose", "drop"])
def test_several_pictures_get_several_answers(open_page, url, classifier, how):
    page = open_page(url)
    others = [encode(drawing(240, 240, (250, 250, 250)), "JPEG"), encode(Image.new("L", (28, 28), 90))]
    files = [
        ("a.png", "image/png", PICTURE), ("notes.txt", "text/plain", b"hello"), ("b.jpg", "image/jpeg", others[0]),
        ("broken.png", "image/png", PICTURE[:100]), ("c.png", "image/png", others[1]),
    ]  # fmt: skip
    if how == "choose":
        page.set_input_files("#file", [as_file(*file) for file in files])
    else:
        drop_files(page, files)
    cards = page.locator(".result")
    expect(cards).to_have_count(5)
    expect(page.locator(".busy")).to_have_count(0)
    for index, (name, _, content) in enumerate(files):
        expect(cards.nth(index)).to_contain_text(f"“{name}”")
        if index in {1, 3}:
            expect(cards.nth(index)).to_contain_class("failed")
        else:
            prediction = classifier.classify(content)
            expect(cards.nth(index)).to_contain_text(f"{prediction.label}, {100 * prediction.probability:.1f} %")
    add_file(page, "choose")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("Prediction")


def test_new_picture_ends_the_wait_for_the_others(open_page, url):
    page = open_page(url)
    page.set_input_files("#file", [as_file(f"{number}.png") for number in range(20)])
    page.set_input_files("#file", as_file())
    expect(page.locator(".bars li")).to_have_count(10)
    expect(page.locator(".result")).to_have_count(1)


def test_busy_server_is_asked_again(open_page):
    slow = SlowClassifier()
    with serving(slow, limits=Limits(max_pictures=1, threads=1)) as port, ThreadPoolExecutor(1) as other:
        page = open_page(f"http://127.0.0.1:{port}")
        waiting = other.submit(classify, port, PICTURE)
        assert slow.started.acquire(timeout=60)
        with page.expect_response(lambda response: response.status == 503):
            add_file(page, "choose")
        slow.release.set()
        expect(page.get_by_role("status")).to_contain_text("Coat, 52.0 %")
        assert waiting.result()[0] == 200


def test_webcam_takes_a_picture_and_is_closed_afterwards(open_page, url):
    page = open_page(url)
    page.get_by_role("button", name="Use the webcam").click()
    video = page.locator("#video")
    expect(video).to_be_visible()
    expect(video).to_have_js_property("paused", False)
    tracks = page.evaluate_handle("stream.getTracks()")
    page.get_by_role("button", name="Take the picture").click()
    expect(page.locator(".bars li")).to_have_count(10)
    expect(video).to_be_hidden()
    assert tracks.evaluate("tracks => tracks.map((track) => track.readyState)") == ["ended"]
    page.get_by_role("button", name="Use the webcam").click()
    page.get_by_role("button", name="Close the webcam").click()
    expect(video).to_be_hidden()
    assert page.evaluate("stream") is None


def test_buttons_of_the_webcam_stay_where_they_are_when_its_picture_arrives(open_page, url):
    page = open_page(url)
    page.evaluate("element('viewfinder').hidden = false; element('webcam').hidden = true")
    before = page.locator("#close").bounding_box()
    page.evaluate(
        """async () => {
            const picture = new Promise((resolve) => element("video").addEventListener("resize", resolve));
            await openWebcam();
            await picture;
        }"""
    )
    assert page.locator("#close").bounding_box() == before


def test_webcam_opened_twice_is_closed_once_for_all(open_page, url):
    page = open_page(url)
    tracks = page.evaluate_handle(
        """async () => {
            const opened = [], open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            navigator.mediaDevices.getUserMedia = async (options) => {
                const stream = await open(options);
                opened.push(...stream.getTracks());
                return stream;
            };
            await Promise.all([openWebcam(), openWebcam()]);
            return opened;
        }"""
    )
    page.get_by_role("button", name="Close the webcam").click()
    assert tracks.evaluate("tracks => tracks.map((track) => track.readyState)") == ["ended", "ended"]


WEBCAM_PROBLEMS = {"NotAllowedError": "The browser does not allow", "NotFoundError": "No webcam can be used."}


@pytest.mark.parametrize("error", WEBCAM_PROBLEMS)
def test_webcam_that_cannot_be_used_is_explained(open_page, url, error):
    page = open_page(url)
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name); }; }", error
    )
    page.get_by_role("button", name="Use the webcam").click()
    expect(page.get_by_role("status")).to_contain_text(WEBCAM_PROBLEMS[error])


def test_webcam_is_not_offered_without_a_camera_interface(browser, url):
    context = browser.new_context()
    context.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_text("SHA-256")).to_be_visible()
    expect(page.locator("#webcam")).to_be_hidden()
    context.close()


REASON = "between Coat and Shirt"
VERDICTS = {
    "accepted": ((0.91, True, None), ["Prediction", "Coat, 52.0 %", "Confidence 0.910."]),
    "not accepted": (
        (0.31, False, REASON),
        ["Not sure", "Between Coat and Shirt. Most likely Coat, 52.0 %. Confidence 0.310 is too low."],
    ),
    "nothing found": ((0.0, False, "nothing found in the picture"), ["What would help: ", "plain background", "light"]),
    "cut off": (
        (0.2, False, "cut off at the lower edge: step back"),
        ["What would help: ", "the whole garment is in the picture"],
    ),
    "unknown thing": (
        (0.2, False, "not like any of the 10 classes"),
        ["What would help: ", "alone", "plain background"],
    ),
    "two classes": ((0.2, False, REASON), ["What would help: ", "whole garment straight from the front"]),
    "like shorts": (
        (0.2, False, "none of the 10 classes: it looks like shorts"),
        ["None of the 10 classes: it looks like shorts.", "What would help: ", "alone"],
    ),
    "too dark": (
        (0.2, False, "too dark: more light would help"),
        ["Too dark: more light would help.", "Turn a light on"],
    ),
    "another reason": ((0.2, False, "blurred"), ["Blurred.", "What would help: One whole garment"]),
    "no rejection rule": ((None, None, None), ["Prediction", "Coat, 52.0 %", "This model never says “not sure”."]),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict_and_reason_are_shown(open_page, case):
    verdict, words = VERDICTS[case]
    with serving(FakeClassifier(*verdict)) as port:
        page = open_page(f"http://127.0.0.1:{port}")
        add_file(page, "choose")
        for part in [*words, "Answered by fake."]:
            expect(page.get_by_role("status")).to_contain_text(part)
            expect(page.locator(".result")).to_contain_text(part)


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
        expect(page.locator(".bars li")).to_have_count(2)
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
