"""The server as its clients meet it, over real sockets: answers, refusals, limits, and what it keeps to itself."""

import base64
import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

import fmnist
from fmnist.demo import server
from fmnist.demo.api_schema import Limits
from fmnist.inference import photo
from fmnist.runs import run as runs

JPEG = {"Content-Type": "image/jpeg"}


@contextlib.contextmanager
def serving(classifier, manifest, dataset=None, limits=None):
    """Run a real server in a thread; gives its port."""
    app = server.create_app(classifier, manifest, dataset, limits)
    with server.listen(0) as listener:
        running = server.prepare(app)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def ask(port, method="GET", path="/healthz", body=None, headers=None):
    """Send one request; gives status, headers and content. A body that is no bytes is sent in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def classify(port, content, path="/v1/classify", headers=JPEG):
    status, got, text = ask(port, "POST", path, content, headers)
    return status, got, json.loads(text)


def encode(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def drawing(width=200, height=240, ground=(200, 180, 150)):
    """A dark garment of sorts on a light ground."""
    picture = Image.new("RGB", (width, height), ground)
    picture.paste((30, 40, 90), (width // 4, height // 6, 3 * width // 4, 5 * height // 6))
    return picture


PICTURE = encode(drawing())


@pytest.fixture(scope="module")
def port(classifier, small_run, small):
    with serving(classifier, small_run.manifest(), small) as number:
        yield number


class Patient:
    """In place of a classifier: takes as long as it is told, and answers that it is a bag."""

    name, class_names, sha256, acceptance = "patient", ("Bag",), "0" * 64, None

    def __init__(self):
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)

    def answer(self, _):
        self.begun.release()
        assert self.go_on.wait(20)
        top = [{"label": "Bag", "class": 0, "probability": 1.0}]
        return {**top[0], "acceptance": None, "accepted": None, "reason": None, "top": top}


def test_a_picture_gets_the_answer_of_the_classifier(port, classifier):
    status, headers, answer = classify(port, PICTURE, headers={"Content-Type": "image/png"})
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert answer == classifier.answer(photo.convert(photo.read(PICTURE)))
    assert len(answer["top"]) == 10


def test_the_steps_come_when_asked_for(port):
    _, _, answer = classify(port, encode(drawing(900, 1200), "JPEG"), "/v1/classify?steps=true")
    assert list(answer["steps"]) == ["original", "mask", "crop", "28x28"]
    pictures = {
        name: Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
        for name, uri in answer["steps"].items()
    }
    width, height = pictures["original"].size
    assert 4 * width == 3 * height <= 2_000  # as it was, and small enough to show
    assert pictures["28x28"].size == (28, 28)


def test_the_model_says_what_it_is(port, classifier, small_run):
    document = json.loads(ask(port, path="/v1/model")[2])
    manifest = small_run.manifest()
    assert document == {
        "name": str(small_run.folder),
        "class_names": manifest["class_names"],
        "temperature": manifest["temperature"],
        "acceptance_threshold": classifier.acceptance.threshold,
        "sha256": manifest["sha256"]["model.onnx"],
    }
    assert json.loads(ask(port)[2]) == {"status": "ok"}


def test_the_packaged_model_names_the_graph_that_answers():
    run = runs.packaged()
    with serving(fmnist.Classifier.load(), run.manifest()) as port:
        document = json.loads(ask(port, path="/v1/model")[2])
    assert document["sha256"] == run.manifest()["sha256"][runs.INT8_FILE]


def test_samples_are_test_images_of_every_class(port, small):
    samples = json.loads(ask(port, path="/v1/samples")[2])
    assert [sample["label"] for sample in samples] == list(small.class_names)
    for sample in samples:
        content = base64.b64decode(sample["picture"].partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert (pixels == small.test_images[sample["index"]]).all()
        assert small.class_names[small.test_labels[sample["index"]]] == sample["label"]


def test_samples_are_looked_for_but_never_fetched(small_run, small, monkeypatch, tmp_path):
    assert (server.find_samples(small_run).test_images == small.test_images).all()
    monkeypatch.setattr(server.sources, "load_verified", pytest.fail)
    monkeypatch.setattr(server.sources, "keras_folder", lambda: tmp_path)
    monkeypatch.setattr(server.sources, "DEBIAN_FOLDER", tmp_path / "none")
    elsewhere = server.dataclasses.replace(small_run, config=fmnist.Config.from_preset("fast"))
    assert server.find_samples(elsewhere) is None
    with serving(Patient(), {}) as empty:
        assert ask(empty, path="/v1/samples")[2] == b"[]"


def bomb():
    """A PNG of 50,000 x 50,000 pixels by its header, check sum and all, in less than a hundred bytes."""
    content = bytearray(encode(Image.new("L", (1, 1))))
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def animation():
    frames = [Image.new("RGB", (60, 60), colour) for colour in ("red", "blue", "green")]
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])


PICTURES = {
    "empty": b"",
    "one byte": b"x",
    "text": b"this is not a picture\n",
    "a page": b"<!doctype html><svg xmlns='http://www.w3.org/2000/svg'></svg>",
    "a PDF named jpg": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n",
    "truncated JPEG": encode(drawing(), "JPEG")[:900],
    "truncated PNG": PICTURE[:200],
    "a PNG's signature alone": PICTURE[:8],
    "a bomb": bomb(),
    "25 megapixels": encode(Image.new("L", (5_000, 5_000))),
    "1x1": encode(Image.new("RGB", (1, 1))),
    "1x20000": encode(Image.new("RGB", (1, 20_000), "white")),
    "20000x1": encode(Image.new("RGB", (20_000, 1), "white")),
    "all black": encode(Image.new("RGB", (300, 300))),
    "all white": encode(Image.new("RGB", (300, 300), "white")),
    "transparent": encode(Image.new("RGBA", (300, 300))),
    "grey with transparency": encode(drawing().convert("LA")),
    "palette": encode(drawing().convert("P")),
    "palette with transparency": encode(drawing().convert("P"), transparency=0),
    "one bit": encode(drawing().convert("1")),
    "16 bit": encode(Image.fromarray(np.linspace(0, 65_535, 10_000, dtype=np.uint16).reshape(100, 100))),
    "CMYK": encode(drawing().convert("CMYK"), "JPEG"),
    "animated": animation(),
    "EXIF that is none": encode(drawing(), "JPEG", exif=b"Exif\x00\x00nonsense"),
    "28x28 grey": encode(Image.new("L", (28, 28), 90)),
    "28x28 colour": encode(Image.new("RGB", (28, 28), "red")),
    "GIF": encode(drawing(), "GIF"),
    "BMP": encode(drawing(), "BMP"),
    "TIFF": encode(drawing(), "TIFF"),
}
NO_PICTURES = {
    "empty", "one byte", "text", "a page", "a PDF named jpg", "truncated JPEG", "truncated PNG",
    "a PNG's signature alone", "a bomb", "25 megapixels", "1x1", "1x20000", "20000x1", "GIF", "BMP", "TIFF",
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_whatever_the_picture_the_answer_is_clear(port, name, capfd):
    status, _, document = classify(port, PICTURES[name], "/v1/classify?steps=true")
    assert status == (400 if name in NO_PICTURES else 200)
    if status == 400:
        assert list(document) == ["error"]
        assert document["error"]
        assert "\n" not in document["error"]
        assert "Traceback" not in document["error"]
    else:
        assert sum(candidate["probability"] for candidate in document["top"]) == pytest.approx(1, abs=1e-4)
    assert capfd.readouterr().err == ""
    assert classify(port, PICTURE)[0] == 200


REQUESTS = {
    "no type": ("POST", "/v1/classify", {}, 415, "expected a picture as the body"),
    "text": ("POST", "/v1/classify", {"Content-Type": "text/plain"}, 415, "expected a picture as the body"),
    "a form": ("POST", "/v1/classify", {"Content-Type": "multipart/form-data; boundary=x"}, 415, "expected a picture"),
    "almost": ("POST", "/v1/classify", {"Content-Type": "image/"}, 415, "expected a picture as the body"),
    "no boolean": ("POST", "/v1/classify?steps=perhaps", JPEG, 422, "steps: "),
    "another method": ("PUT", "/v1/classify", JPEG, 405, "Method Not Allowed"),
    "another path": ("POST", "/v2/classify", JPEG, 404, "Not Found"),
    "a foreign name": ("POST", "/v1/classify", {**JPEG, "Host": "evil.example"}, 421, "127.0.0.1 or localhost"),
    "a name that begins well": ("GET", "/", {"Host": "127.0.0.1.evil.example:80"}, 421, "127.0.0.1 or localhost"),
    "no name": ("GET", "/", {"Host": ""}, 421, "127.0.0.1 or localhost"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_what_is_refused_says_why(port, case):
    method, path, headers, expected, words = REQUESTS[case]
    status, _, text = ask(port, method, path, PICTURE, headers)
    assert status == expected
    document = json.loads(text)
    assert list(document) == ["error"]
    assert words in document["error"]


@pytest.mark.parametrize("kind", ["image/png", "IMAGE/JPEG", "image/svg+xml", "image/*", "image/jpeg; charset=utf-8"])
def test_any_image_type_is_looked_at_by_its_content(port, kind):
    assert classify(port, PICTURE, headers={"Content-Type": kind})[0] == 200


def test_localhost_is_a_name_of_this_machine(port):
    assert ask(port, headers={"Host": f"LOCALHOST:{port}"})[0] == 200


def test_no_foreign_page_is_let_in(port):
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for method, path in (("OPTIONS", "/v1/classify"), ("GET", "/v1/model"), ("GET", "/")):
        _, headers, _ = ask(port, method, path, headers=preflight)
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


def in_chunks(num_bytes):
    """A body without a Content-Length."""
    return (b"x" * 100_000 for _ in range(num_bytes // 100_000))


LARGE = Limits().body_bytes
BODIES = {
    "as large as may be": (bytes(LARGE), 400),
    "a byte more": (bytes(LARGE + 1), 413),
    "as large as may be, in chunks": (in_chunks(LARGE), 400),
    "more, in chunks": (in_chunks(LARGE + 100_000), 413),
    "far more, in chunks": (in_chunks(4 * LARGE), 413),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_is_counted_as_it_arrives(port, case):
    body, expected = BODIES[case]
    status, _, document = classify(port, body)
    assert status == expected
    assert ("larger than 10 MB" in document["error"]) == (expected == 413)


def begin(port, length=1_000):
    """Open a connection that promises a picture and sends ten bytes of it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = (
        f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode() + b"0123456789")
    return connection


def test_a_content_length_alone_can_be_too_large(port):
    """Refused before the rest of it was sent."""
    with begin(port, LARGE + 1) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_slow_sender_is_given_up():
    with serving(Patient(), {}, limits=Limits(body_seconds=0.3)) as port:
        started = time.monotonic()
        with begin(port) as connection:
            answer = b"".join(iter(lambda: connection.recv(1_000), b""))
        assert time.monotonic() - started > 0.3
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b'{"error":"the picture did not arrive within 0.3 s"}')


def eventually(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_more_is_begun_than_there_are_places():
    patient = Patient()
    with serving(patient, {}, limits=Limits(places=3, threads=1)) as port, ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(classify, port, PICTURE) for _ in range(2)]
        with begin(port):
            assert patient.begun.acquire(timeout=10)
            eventually(lambda: classify(port, PICTURE)[0] == 503)
            status, headers, document = classify(port, PICTURE * 10_000)
            assert status == 503
            assert headers["Retry-After"] == "1"
            assert document == {"error": "busy with other pictures; try again"}
            assert ask(port)[0] == 200
        patient.go_on.set()
        assert [answer.result()[0] for answer in waiting] == [200, 200]


def test_who_goes_away_leaves_a_place():
    patient = Patient()
    patient.go_on.set()
    with serving(patient, {}, limits=Limits(places=1)) as port:
        with begin(port):
            eventually(lambda: classify(port, PICTURE)[0] == 503)
        eventually(lambda: classify(port, PICTURE)[0] == 200)


def test_slow_work_is_answered_and_keeps_its_place():
    patient = Patient()
    with serving(patient, {}, limits=Limits(places=1, threads=1, work_seconds=0.3)) as port:
        status, headers, document = classify(port, PICTURE)
        assert (status, document) == (503, {"error": "no answer within 0.3 s; try a smaller picture"})
        assert headers["Retry-After"] == "5"
        assert classify(port, PICTURE)[2] == {"error": "busy with other pictures; try again"}
        patient.go_on.set()
        eventually(lambda: classify(port, PICTURE)[0] == 200)


def test_an_internal_error_tells_nothing(capfd, caplog):
    class Broken(Patient):
        def answer(self, _):
            raise ValueError("something private")

    caplog.set_level("INFO")
    with serving(Broken(), {}) as port:
        status, headers, document = classify(port, PICTURE)
        assert (status, document) == (500, {"error": "internal error (ValueError)"})
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert ask(port)[0] == 200
    assert "500 after" in caplog.text
    assert "private" not in caplog.text
    assert capfd.readouterr().err == ""


def test_only_sizes_and_times_are_logged(port, caplog):
    caplog.set_level("INFO")
    classify(port, PICTURE, "/v1/classify?steps=true&name=secret.png", {**JPEG, "User-Agent": "secret"})
    classify(port, b"secret", "/v1/classify", JPEG)
    ask(port, path="/secret")
    first, second = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(rf"{len(PICTURE):,} bytes: 200 after \d+ ms", first)
    assert re.fullmatch(r"6 bytes: 400 after \d+ ms", second)


def test_fifty_clients_at_once_get_right_answers_or_busy(port, classifier):
    pictures = [encode(drawing(100 + 7 * number, 150, (250, 20 * number, 90))) for number in range(10)]
    expected = [classifier.answer(photo.convert(photo.read(picture))) for picture in pictures]
    deadline = time.monotonic() + 3

    def client(number):
        answers = []
        while time.monotonic() < deadline:
            chosen = (number + len(answers)) % len(pictures)
            status, _, document = classify(port, pictures[chosen])
            answers.append((status, status == 503 or document == expected[chosen]))
        return answers

    with ThreadPoolExecutor(50) as clients:
        answers = [answer for answers in clients.map(client, range(50)) for answer in answers]
    assert {status for status, _ in answers} <= {200, 503}
    assert all(right for _, right in answers)
    assert sum(status == 200 for status, _ in answers) > 10


@st.composite
def small_pictures(draw):
    # smaller ones are refused, which OpenAPI has no words for
    size = draw(st.tuples(st.integers(28, 60), st.integers(28, 60)))
    colour = draw(st.tuples(*[st.integers(0, 255)] * 3))
    return encode(Image.new("RGB", size, colour), draw(st.sampled_from(["PNG", "JPEG", "WEBP"])))


schemathesis.openapi.media_type("image/*", small_pictures())
direct = requests.Session()
direct.trust_env = False  # the tests' environment leads to a proxy that is none


schema = schemathesis.openapi.from_dict(server.create_app(Patient(), {}).openapi())


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_openapi_document_is_kept(case, port):
    case.call_and_validate(base_url=f"http://127.0.0.1:{port}", session=direct)


def test_the_server_needs_no_keras():
    script = "import sys, fmnist.demo.server; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "fastapi" in done.stdout.split()
    assert set(done.stdout.split()) & {"keras", "tensorflow", "jax", "matplotlib", "sklearn", "scipy"} == set()


TELEMETRY_IS_OFF = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI"}
"""What keeps ONNX Runtime from reporting; a user has none of it set."""


@contextlib.contextmanager
def demo(run, folder, *arguments):
    """Start `fmnist demo` in a folder; gives the process and what it says of itself."""
    command = [sys.executable, "-m", "fmnist", "demo", "--model", run.folder, "--port", "0", "--json", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in TELEMETRY_IS_OFF}
    environment["TMPDIR"] = str(folder)
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            lines = []
            while not lines or lines[-1] != "}\n":
                lines.append(process.stdout.readline())
                assert lines[-1], process.stderr.read()
            yield process, json.loads("".join(lines))
        finally:
            process.kill()


def test_the_command_serves_leaves_nothing_and_ends_with_ctrl_c(small_run, tmp_path):
    with demo(small_run, tmp_path) as (process, document):
        port = int(document["url"].rpartition(":")[2])
        assert document == {"url": f"http://127.0.0.1:{port}", "model": str(small_run.folder)}
        assert classify(port, PICTURE)[0] == 200
        assert classify(port, b"nothing")[0] == 400
        with begin(port):  # who sends slowly does not keep it from ending
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=12)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Ctrl-C ends it" in err
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_ctrl_c_when_nobody_asks(small_run, tmp_path):
    with demo(small_run, tmp_path) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "Traceback" not in process.stderr.read()


def test_a_port_in_use_is_one_line(cli, small_run):
    with server.listen(0) as taken:
        number = taken.getsockname()[1]
        code, out, err = cli("demo", "--model", small_run.folder, "--port", number)
    assert (code, out) == (1, "")
    assert err == (
        f"fmnist: error: port {number} of 127.0.0.1 cannot be opened (Address already in use); choose another with "
        "--port, or 0 for any that is free\n"
    )


def test_without_the_extra_the_mend_is_named(cli, monkeypatch):
    monkeypatch.setattr("fmnist.cli.find_spec", lambda name: None if name == "uvicorn" else True)
    code, out, err = cli("demo")
    assert (code, out) == (1, "")
    assert err == "fmnist: error: fmnist demo needs FastAPI and uvicorn; `pip install 'fmnist[demo]'` brings them\n"
