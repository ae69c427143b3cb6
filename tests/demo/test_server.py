"""The server over real sockets: predictions, errors, limits, security headers and the log."""

import base64
import contextlib
import dataclasses
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
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import requests
import schemathesis
from helpers import interruptible
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from fmnist.demo import server
from fmnist.demo.api_schema import Limits
from fmnist.demo.middleware import is_own_host
from fmnist.inference import photo, picture
from fmnist.inference.adapt import adapt
from fmnist.inference.prediction import ClassProbability, Prediction
from fmnist.runs.run import INT8_FILE, open_pretrained

JPEG = {"Content-Type": "image/jpeg"}
MANIFEST = SimpleNamespace(temperature=1.5)


@contextlib.contextmanager
def serving(classifier, manifest=MANIFEST, dataset=None, limits=None):
    """Run a server in a thread and yield its port."""
    app = server.create_app(classifier, manifest, dataset, limits)
    with server.listen(0) as listener:
        uvicorn_server = server.make_server(app)
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            uvicorn_server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def send(port, method="GET", path="/healthz", body=None, headers=None):
    """Send one request; return status, headers and content. A body that is an iterator is sent in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def classify(port, content, path="/v1/classify", headers=JPEG):
    status, response_headers, text = send(port, "POST", path, content, headers)
    return status, response_headers, json.loads(text)


def encode(picture, file_format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def drawing(width=200, height=240, background=(200, 180, 150)):
    """Draw a dark rectangle, roughly a garment, on a light background."""
    picture = Image.new("RGB", (width, height), background)
    picture.paste((30, 40, 90), (width // 4, height // 6, 3 * width // 4, 5 * height // 6))
    return picture


PICTURE = encode(drawing())


@pytest.fixture(scope="module")
def port(classifier, manifest, small):
    with serving(classifier, manifest, small) as number:
        yield number


class FakeClassifier:
    """A classifier that returns the same prediction for every picture."""

    name, class_names, sha256, threshold, photo_threshold = "fake", ("Coat", "Shirt"), "0" * 64, None, None

    def __init__(self, confidence=None, accepted=None, reason=None):
        self.verdict = {"confidence": confidence, "accepted": accepted, "reason": reason}

    def classify(self, source, *, name="picture"):
        top = [ClassProbability("Coat", 0, 0.52), ClassProbability("Shirt", 1, 0.48)]
        steps = photo.convert(picture.read(source, name)).steps
        return Prediction("Coat", 0, 0.52, model=self.name, kind="photo", top=top, steps=steps, **self.verdict)


class SlowClassifier(FakeClassifier):
    """A classifier that waits until it is released."""

    def __init__(self):
        super().__init__()
        self.release = threading.Event()
        self.started = threading.Semaphore(0)

    def classify(self, source, *, name="picture"):
        self.started.release()
        assert self.release.wait(20)
        return super().classify(source, name=name)


def test_picture_gets_the_prediction_of_the_classifier(port, classifier):
    status, headers, prediction = classify(port, PICTURE, headers={"Content-Type": "image/png"})
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert prediction == classifier.classify(PICTURE).to_json()
    assert {"confidence", "accepted", "model"} < prediction.keys()
    assert len(prediction["top"]) == 10


def test_steps_are_returned_on_request(port):
    _, _, prediction = classify(port, encode(drawing(900, 1200), "JPEG"), "/v1/classify?steps=true")
    assert list(prediction["steps"]) == ["original", "mask", "crop", "28x28"]
    pictures = {
        name: Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
        for name, uri in prediction["steps"].items()
    }
    width, height = pictures["original"].size
    assert 4 * width == 3 * height <= 2_000  # same proportions, small enough to show
    assert pictures["28x28"].size == (28, 28)


def test_model_is_described(port, classifier, manifest):
    assert json.loads(send(port, path="/v1/model")[2]) == {
        "name": classifier.name,
        "class_names": list(manifest.class_names),
        "temperature": manifest.temperature,
        "confidence_threshold": manifest.rejection_rule.threshold,
        "photo_confidence_threshold": classifier.color.record.threshold,
        "sha256": manifest.sha256[INT8_FILE],
    }
    assert json.loads(send(port)[2]) == {"status": "ok"}


def test_samples_are_test_images_of_every_class(port, small):
    samples = json.loads(send(port, path="/v1/samples")[2])
    assert [sample["label"] for sample in samples] == list(small.class_names)
    for sample in samples:
        content = base64.b64decode(sample["picture"].partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert (pixels == small.test_images[sample["index"]]).all()
        assert small.class_names[small.test_labels[sample["index"]]] == sample["label"]


def test_samples_are_drawn_once(port):
    responses = {send(port, path="/v1/samples")[2] for _ in range(3)}
    assert len(responses) == 1


def test_samples_are_of_the_data_of_the_run_and_never_downloaded(fashion, small_folder, monkeypatch, tmp_path):
    run = open_pretrained()
    found = server.find_samples(run)
    assert (found.test_images == fashion.test_images).all()
    assert len(found.train_images) == 0
    other_data = dataclasses.replace(run, config=msgspec.structs.replace(run.config, data=str(small_folder)))
    assert server.find_samples(other_data) is None
    monkeypatch.setattr("fmnist.data.download.load_verified", pytest.fail)
    monkeypatch.setattr(server, "keras_folder", lambda: tmp_path)
    monkeypatch.setattr(server, "DEBIAN_FOLDER", tmp_path / "none")
    assert server.find_samples(run) is None
    with serving(FakeClassifier()) as port:
        assert send(port, path="/v1/samples")[2] == b"[]"


def test_requests_on_a_kept_connection_are_answered_at_once(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    seconds = []
    for _ in range(30):
        started = time.monotonic()
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        seconds.append(time.monotonic() - started)
    connection.close()
    assert np.median(seconds) < 0.02


def bomb():
    """Build a decompression bomb: a PNG of fewer than 100 bytes whose header declares 50,000 x 50,000 pixels."""
    content = bytearray(encode(Image.new("L", (1, 1))))
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def animation():
    frames = [Image.new("RGB", (60, 60), color) for color in ("red", "blue", "green")]
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])


PICTURES = {
    "empty": b"",
    "one byte": b"x",
    "text": b"this is not a picture\n",
    "SVG": b"<!doctype html><svg xmlns='http://www.w3.org/2000/svg'></svg>",
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n",
    "truncated JPEG": encode(drawing(), "JPEG")[:900],
    "truncated PNG": PICTURE[:200],
    "PNG signature only": PICTURE[:8],
    "decompression bomb": bomb(),
    "25 megapixels": encode(Image.new("L", (5_000, 5_000))),
    "1x1": encode(Image.new("RGB", (1, 1))),
    "1x20000": encode(Image.new("RGB", (1, 20_000), "white")),
    "20000x1": encode(Image.new("RGB", (20_000, 1), "white")),
    "all black": encode(Image.new("RGB", (300, 300))),
    "all white": encode(Image.new("RGB", (300, 300), "white")),
    "transparent": encode(Image.new("RGBA", (300, 300))),
    "gray with transparency": encode(drawing().convert("LA")),
    "palette": encode(drawing().convert("P")),
    "palette with transparency": encode(drawing().convert("P"), transparency=0),
    "one bit": encode(drawing().convert("1")),
    "16 bit": encode(Image.fromarray(np.linspace(0, 65_535, 10_000, dtype=np.uint16).reshape(100, 100))),
    "CMYK": encode(drawing().convert("CMYK"), "JPEG"),
    "animated": animation(),
    "invalid EXIF": encode(drawing(), "JPEG", exif=b"Exif\x00\x00nonsense"),
    "28x28 gray": encode(Image.new("L", (28, 28), 90)),
    "28x28 color": encode(Image.new("RGB", (28, 28), "red")),
    "GIF": encode(drawing(), "GIF"),
    "BMP": encode(drawing(), "BMP"),
    "TIFF": encode(drawing(), "TIFF"),
}
UNUSABLE = {
    "empty", "one byte", "text", "SVG", "PDF", "truncated JPEG", "truncated PNG",
    "PNG signature only", "decompression bomb", "25 megapixels", "1x1", "1x20000", "20000x1",
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_any_content_gets_a_prediction_or_one_line(port, name, capfd):
    status, _, document = classify(port, PICTURES[name], "/v1/classify?steps=true")
    assert status == (400 if name in UNUSABLE else 200)
    if status == 400:
        assert list(document) == ["error"]
        assert document["error"]
        assert "\n" not in document["error"]
        assert "Traceback" not in document["error"]
    else:
        total = sum(candidate["probability"] for candidate in document["top"])
        # For a photo, the rest is the probability of none of the classes.
        assert total == pytest.approx(1, abs=1e-4) or (document["kind"] != "image" and 0 <= total < 1)
    assert capfd.readouterr().err == ""
    assert classify(port, PICTURE)[0] == 200


REQUESTS = {
    "no content type": ("POST", "/v1/classify", {}, 415, "expected a picture as the body"),
    "text": ("POST", "/v1/classify", {"Content-Type": "text/plain"}, 415, "expected a picture as the body"),
    "form": ("POST", "/v1/classify", {"Content-Type": "multipart/form-data; boundary=x"}, 415, "expected a picture"),
    "no subtype": ("POST", "/v1/classify", {"Content-Type": "image/"}, 415, "expected a picture as the body"),
    "not a boolean": ("POST", "/v1/classify?steps=perhaps", JPEG, 422, "steps: "),
    "unknown method": ("PUT", "/v1/classify", JPEG, 405, "Method Not Allowed"),
    "unknown path": ("POST", "/v2/classify", JPEG, 404, "Not Found"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_refused_request_gets_one_line(port, case):
    method, path, headers, expected, words = REQUESTS[case]
    status, _, text = send(port, method, path, PICTURE, headers)
    assert status == expected
    document = json.loads(text)
    assert list(document) == ["error"]
    assert words in document["error"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:80", "evil.example:127.0.0.1", "127.0.0.1@evil.example", "[::1", "[]",
     "[v1.x]:80", ":", "", "%", "localhost:", "127.0.0.1:port", "loc\u00e4lhost", "a" * 9_000,
     "127.0.0.1:evil.example", "localhost:80@evil.example", "localhost:123456", "localhost:65536", "localhost:+80",
     "localhost:8 0", "localhost:\u00b2", "127.0.0.1:80:80", "localhost/", "user@localhost", "192.168.0.7", "0.0.0.0"],
)  # fmt: skip
def test_foreign_host_name_is_refused(port, host, caplog, capfd):
    status, headers, text = send(port, "POST", "/v1/classify", PICTURE, {**JPEG, "Host": host.encode("latin-1")})
    assert status == 400
    assert json.loads(text) == {"error": "expected the name or address of this server as the Host header"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "internal error" not in caplog.text
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "content_type", ["image/png", "IMAGE/JPEG", "image/svg+xml", "image/*", "image/jpeg; charset=utf-8"]
)
def test_any_image_type_is_decoded_by_its_content(port, content_type):
    assert classify(port, PICTURE, headers={"Content-Type": content_type})[0] == 200


@pytest.mark.parametrize("host", ["LOCALHOST:{port}", "localhost", "127.0.0.1", "127.0.0.1:80", "[::1]:{port}"])
def test_own_host_name_is_accepted(port, host):
    assert send(port, headers={"Host": host.format(port=port)})[0] == 200


MACHINE = socket.gethostname()
HOSTS = {
    "0.0.0.0": ({"192.168.0.7", "10.0.0.1:8000", "[fe80::1]", MACHINE, f"{MACHINE}.local:80", "localhost"},
                {"evil.example", "192.168.0.7.evil.example", "192.168.0.7@evil.example", "192.168.0.7:x", "1.2.3", ""}),
    "laptop.example": ({"laptop.example", "LAPTOP.example:80", "192.168.0.7"}, {"evil.example", "x.laptop.example"}),
    "127.0.0.2": ({"127.0.0.2:80", "localhost"}, {"192.168.0.7", MACHINE + ".example"}),
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_accepted_host_names_depend_on_the_address_of_the_server(host):
    accepted, refused = HOSTS[host]
    assert {header for header in accepted | refused if is_own_host(header, host)} == accepted


def test_other_sites_have_no_access(port):
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for method, path in (("OPTIONS", "/v1/classify"), ("GET", "/v1/model"), ("GET", "/")):
        _, headers, _ = send(port, method, path, headers=preflight)
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


def in_chunks(num_bytes):
    """A body without a Content-Length."""
    return (b"x" * 100_000 for _ in range(num_bytes // 100_000))


LARGE = Limits().max_bytes
BODIES = {
    "at the limit": (bytes(LARGE), 400),
    "one byte more": (bytes(LARGE + 1), 413),
    "at the limit, in chunks": (in_chunks(LARGE), 400),
    "more, in chunks": (in_chunks(LARGE + 100_000), 413),
    "far more, in chunks": (in_chunks(4 * LARGE), 413),
}


@pytest.mark.parametrize("case", BODIES)
def test_body_is_counted_as_it_arrives(port, case):
    body, expected = BODIES[case]
    status, _, document = classify(port, body)
    assert status == expected
    assert ("larger than 10 MB" in document["error"]) == (expected == 413)


def send_part(port, length=1_000):
    """Open a connection that declares a picture of `length` bytes and sends ten bytes of it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=300)
    head = (
        f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode() + b"0123456789")
    return connection


def test_large_content_length_is_refused_at_once(port):
    with send_part(port, LARGE + 1) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_number_of_pictures_is_limited():
    slow = SlowClassifier()
    limits = Limits(max_pictures=3, threads=1)
    with serving(slow, limits=limits) as port, ThreadPoolExecutor(4) as clients:
        responses = [clients.submit(classify, port, PICTURE) for _ in range(4)]
        wait_until(lambda: any(response.done() for response in responses))  # the last to arrive is refused at once
        status, headers, document = classify(port, PICTURE * 10_000)
        assert status == 503
        assert headers["Retry-After"] == "1"
        assert document == {"error": "busy with other pictures; try again"}
        assert send(port)[0] == 200
        slow.release.set()
        assert sorted(response.result()[0] for response in responses) == [200, 200, 200, 503]


def test_slow_classification_times_out_and_keeps_its_slot():
    slow = SlowClassifier()
    with serving(slow, limits=Limits(max_pictures=1, threads=1, classify_seconds=0.3)) as port:
        status, headers, document = classify(port, PICTURE)
        assert (status, document) == (503, {"error": "no result within 0.3 s; try a smaller picture"})
        assert headers["Retry-After"] == "5"
        assert classify(port, PICTURE)[2] == {"error": "busy with other pictures; try again"}
        slow.release.set()
        wait_until(lambda: classify(port, PICTURE)[0] == 200)


def test_picture_that_timed_out_in_the_queue_is_not_classified():
    slow = SlowClassifier()
    limits = Limits(max_pictures=2, threads=1, classify_seconds=0.2)
    with serving(slow, limits=limits) as port:
        assert [classify(port, PICTURE)[0] for _ in range(4)] == [503] * 4
        slow.release.set()
        wait_until(lambda: classify(port, PICTURE)[0] == 200)
    assert [slow.started.acquire(blocking=False) for _ in range(3)] == [True, True, False]


def test_internal_error_shows_no_details(capfd, caplog):
    class BrokenClassifier(FakeClassifier):
        def classify(self, source, *, name="picture"):
            raise ValueError("something private")

    caplog.set_level("INFO")
    with serving(BrokenClassifier()) as port:
        status, headers, document = classify(port, PICTURE)
        assert (status, document) == (500, {"error": "internal error (ValueError)"})
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert send(port)[0] == 200
    assert "500 after" in caplog.text
    assert "private" not in caplog.text
    assert capfd.readouterr().err == ""


def test_only_size_status_and_latency_are_logged(port, caplog):
    caplog.set_level("INFO")
    classify(port, PICTURE, "/v1/classify?steps=true&name=secret.png", {**JPEG, "User-Agent": "secret"})
    classify(port, b"secret", "/v1/classify", JPEG)
    send(port, path="/secret")
    first, second = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(rf"{len(PICTURE):,} bytes: 200 after \d+ ms", first)
    assert re.fullmatch(r"6 bytes: 400 after \d+ ms", second)


def test_fifty_concurrent_clients_get_correct_predictions_or_busy(port, classifier):
    pictures = [encode(drawing(100 + 7 * number, 150, (250, 20 * number, 90))) for number in range(10)]
    expected = [classifier.classify(picture).to_json() for picture in pictures]

    def client(number):
        """Ask until there is a prediction."""
        chosen = number % len(pictures)
        while (response := classify(port, pictures[chosen]))[0] == 503:
            time.sleep(0.05)
        return response[0], response[2] == expected[chosen]

    with ThreadPoolExecutor(50) as clients:
        assert set(clients.map(client, range(50))) == {(200, True)}


@st.composite
def small_pictures(draw):
    # smaller ones are refused, which an OpenAPI document cannot express
    size = draw(st.tuples(st.integers(28, 60), st.integers(28, 60)))
    color = draw(st.tuples(*[st.integers(0, 255)] * 3))
    return encode(Image.new("RGB", size, color), draw(st.sampled_from(["PNG", "JPEG", "WEBP"])))


schemathesis.openapi.media_type("image/*", small_pictures())
direct = requests.Session()
direct.trust_env = False  # the tests' environment names a proxy that does not exist


schema = schemathesis.openapi.from_dict(server.create_app(FakeClassifier(), MANIFEST).openapi())


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_responses_match_the_openapi_document(case, port):
    case.call_and_validate(base_url=f"http://127.0.0.1:{port}", session=direct)


def test_openapi_document_is_complete(port):
    document = json.loads(send(port, path="/openapi.json")[2])
    assert document["paths"].keys() == {"/v1/classify", "/v1/model", "/v1/samples", "/healthz"}
    schemas = document["components"]["schemas"]
    assert schemas.keys() == {"Prediction", "ClassProbability", "Model", "Sample", "Health", "Failure"}
    references = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)))
    assert references == schemas.keys()
    responses = document["paths"]["/v1/classify"]["post"]["responses"]
    assert responses.keys() == {"200", "400", "408", "413", "415", "422", "503"}
    assert send(port, path="/docs")[0] == 404


def test_server_imports_no_keras():
    script = "import sys, fmnist.demo.server; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "fastapi" in done.stdout.split()
    assert set(done.stdout.split()) & {"keras", "tensorflow", "jax", "matplotlib", "sklearn", "scipy"} == set()


TELEMETRY_IS_OFF = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI"}
"""Variables that switch off ONNX Runtime's telemetry; users have none of them set."""


@contextlib.contextmanager
def demo(folder, *arguments):
    """Start `fmnist demo` with the pretrained model in a folder; yield the process and the JSON that it prints.

    Other arguments of Python can be given.
    """
    command = [sys.executable, *(arguments or ("-m", "fmnist", "demo", "--port", "0", "--json"))]
    environment = {name: value for name, value in os.environ.items() if name not in TELEMETRY_IS_OFF}
    environment["TMPDIR"] = str(folder)
    with subprocess.Popen(
        interruptible(command),
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


def test_command_serves_writes_no_files_and_ends_with_ctrl_c(classifier, tmp_path):
    with demo(tmp_path) as (process, document):
        port = int(document["url"].rpartition(":")[2])
        assert document == {"url": f"http://127.0.0.1:{port}", "model": classifier.name}
        assert classify(port, PICTURE)[0] == 200
        assert classify(port, b"nothing")[0] == 400
        with send_part(port):  # a slow sender does not delay the end
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Ctrl-C" in err
    assert list(tmp_path.iterdir()) == []


def test_idle_command_ends_with_ctrl_c(tmp_path):
    with demo(tmp_path) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
        assert "Traceback" not in process.stderr.read()


def test_port_in_use_is_one_line(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with server.listen(0) as taken:
        number = taken.getsockname()[1]
        code, out, err = cli("demo", "--port", number)
    assert (code, out) == (1, "")
    assert err.endswith(
        f"fmnist: error: port {number} of 127.0.0.1 cannot be opened (Address already in use); choose another with "
        "--port, or 0 for a free one\n"
    )


def test_command_serves_an_adapted_model(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(5):
            low = 20 if name == "dark" else 180
            pixels = rng.integers(low, low + 50, (60, 60, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    record, _ = adapt(tmp_path / "photos", tmp_path / "model")
    command = ("-m", "fmnist", "demo", "--model", "model", "--port", "0", "--json")
    with demo(tmp_path, *command) as (_, document):
        port = int(document["url"].rpartition(":")[2])
        status, _, body = send(port, path="/v1/model")
        assert (status, json.loads(body)) == (
            200,
            {
                "name": "model", "class_names": ["dark", "light"], "temperature": record.temperature,
                "confidence_threshold": record.threshold, "photo_confidence_threshold": record.threshold,
                "sha256": record.sha256,
            },
        )  # fmt: skip
        assert send(port, path="/v1/samples")[2] == b"[]"
        status, _, prediction = classify(port, encode(Image.fromarray(rng.integers(20, 70, (60, 60, 3), np.uint8))))
        assert (status, prediction["label"], prediction["kind"]) == (200, "dark", "photo")


def test_missing_extra_is_named(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "fmnist.demo.server")
    monkeypatch.delattr("fmnist.demo.server")
    code, out, err = cli("demo")
    assert (code, out) == (1, "")
    assert "uvicorn" in err
    assert "pip install 'fmnist[demo]'" in err
    assert err.count("\n") == 1
