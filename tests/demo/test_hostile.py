"""The server among hostile clients: slow ones, many, large pictures, what is not HTTP, and its end among them."""

import contextlib
import http.client
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_server import (
    PICTURE,
    FakeClassifier,
    SlowClassifier,
    classify,
    demo,
    drawing,
    encode,
    send,
    send_part,
    serving,
    wait_until,
)

from fmnist.demo import workers
from fmnist.demo.api_schema import Limits


@pytest.fixture(scope="module")
def port():
    with serving(FakeClassifier()) as number:
        yield number


HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def receive_all(connection):
    """Receive until the server closes the connection."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(100_000):
            content += part
    return content


def exchange(port, content):
    """Send bytes over a new connection and receive the response; return its status, headers and JSON."""
    with connect(port) as connection:
        connection.sendall(content)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.headers, json.loads(response.read())


def post_head(*headers):
    return "\r\n".join(
        ["POST /v1/classify HTTP/1.1", "Host: localhost", "Content-Type: image/png", *headers, "", ""]
    ).encode()


def drip(connection, content, seconds):
    """Send one byte after another until all are sent or the server has closed the connection."""
    with contextlib.suppress(OSError):
        for byte in content:
            connection.sendall(bytes([byte]))
            time.sleep(seconds)


SLOW = Limits(
    head_seconds=0.4, send_seconds=0.4, receive_seconds=1, receive_grace_seconds=0.3, receive_bytes_per_second=200
)


@pytest.fixture(scope="module")
def slow_port():
    with serving(FakeClassifier(), limits=SLOW) as number:
        yield number


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["new", "kept"])
def test_slow_head_ends(slow_port, before):
    with connect(slow_port) as connection:
        if before:
            connection.sendall(before)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        drip(connection, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000, 0.02)
        _, _, response = receive_all(connection).rpartition(b"HTTP/1.1 ")
        assert 0.3 < time.monotonic() - began < 10
    assert response.startswith(b"408 ")
    assert response.endswith(b'{"error": "the head did not arrive within 0.4 s"}')


def test_rest_of_a_refused_request_is_ignored(slow_port, caplog):
    caplog.set_level("INFO")
    with connect(slow_port) as connection:
        connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 408 ")
        connection.sendall(b"Content-Length: 0\r\n\r\n")
        receive_all(connection)
    assert send(slow_port)[0] == 200
    assert caplog.text == ""


@pytest.mark.parametrize("content", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["new", "kept"])
def test_idle_connection_ends_without_a_response(slow_port, content):
    with connect(slow_port) as connection:
        connection.sendall(content)
        assert receive_all(connection).count(b"HTTP/1.1") == bool(content)


def test_body_that_never_ends_after_its_response_ends(slow_port):
    with connect(slow_port) as connection:
        connection.sendall(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        began = time.monotonic()
        drip(connection, b"x" * 1_000, 0.02)
        receive_all(connection)
        assert time.monotonic() - began < 10


def test_client_that_reads_no_responses_is_disconnected(slow_port):
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(slow_port) as connection:
        connection.settimeout(5)
        with pytest.raises(ConnectionError):  # and no TimeoutError
            connection.sendall(1_000_000 * request)
    with connect(slow_port) as connection:
        connection.sendall(300 * request)
        time.sleep(1.5)
        assert receive_all(connection).count(b"200 OK") < 300


def test_client_that_reads_slowly_gets_all_responses():
    with serving(FakeClassifier(), limits=Limits(send_seconds=1)) as port, connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 400_000)
        connection.sendall(799 * b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        content = b""
        while part := connection.recv(300_000):
            content += part
            time.sleep(0.05)
    assert content.count(b"HTTP/1.1 200 OK") == 800


def test_clients_that_read_no_responses_do_not_keep_others_out():
    with serving(FakeClassifier(), limits=Limits(max_connections=3)) as port, contextlib.ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(connect(port))
            connection.sendall(1_000 * b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.1)
            assert send(port)[0] == 200


BODY_RATES = {
    "stops": (10, 60, 0.2, 0.8),
    "below the minimum rate": (100, 0.02, 0.3, 0.8),
    "too long": (2_000, 0.001, 0.9, 4),
}


@pytest.mark.parametrize("case", BODY_RATES)
def test_slow_body_ends(slow_port, case):
    num_bytes, pause, earliest, latest = BODY_RATES[case]
    with connect(slow_port) as connection:
        connection.sendall(post_head("Content-Length: 1000000"))
        began = time.monotonic()
        sender = threading.Thread(target=drip, args=(connection, b"x" * num_bytes, pause), daemon=True)
        sender.start()
        response = receive_all(connection)
        assert earliest < time.monotonic() - began < latest + 5
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in response.lower()
    assert re.search(rb'"only [\d,]+ bytes of the picture arrived within [\d.]+ s"', response)
    assert b"nosniff" in response


def test_slow_bodies_do_not_keep_a_normal_client_out():
    limits = Limits(max_pictures=4, max_connections=100)
    with serving(FakeClassifier(), limits=limits) as port, contextlib.ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(send_part(port))
        for _ in range(10):
            assert classify(port, PICTURE)[0] == 200


def test_flood_of_connections_does_not_keep_a_normal_client_out(caplog):
    with serving(FakeClassifier()) as port, contextlib.ExitStack() as stack:
        for _ in range(3):
            for _ in range(200):
                stack.enter_context(connect(port))
            assert classify(port, PICTURE)[0] == 200
    assert caplog.text == ""


def connect_at_once(stack, port, num_connections):
    """Open connections without waiting for any of them; the stack closes them."""
    connections = [stack.enter_context(socket.socket()) for _ in range(num_connections)]
    for connection in connections:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
    return connections


def is_open(connection):
    """Tell whether the server has left a connection open that it has sent nothing over."""
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_connections_that_arrive_at_once_are_limited():
    limits = Limits(max_connections=20, head_seconds=60)
    with serving(FakeClassifier(), limits=limits) as port, contextlib.ExitStack() as stack:
        connections = connect_at_once(stack, port, 400)
        wait_until(lambda: sum(is_open(connection) for connection in connections) <= 20, seconds=20)
        assert send(port)[0] == 200


FEW_FILES = """
import resource, sys
from fmnist.cli.main import main
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
sys.argv = ["fmnist", "demo", "--port", "0", "--json", "--debug"]
main()
"""


def test_connections_that_arrive_at_once_fit_into_256_open_files(tmp_path):
    with demo(tmp_path, "-c", FEW_FILES) as (process, document), contextlib.ExitStack() as stack:
        port = int(document["url"].rpartition(":")[2])
        connect_at_once(stack, port, 800)
        assert classify(port, PICTURE)[0] == 200
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "Too many open files" not in err


def test_too_many_connections_close_the_one_that_waits_longest():
    with serving(FakeClassifier(), limits=Limits(max_connections=3)) as port, contextlib.ExitStack() as stack:
        oldest, *others = [stack.enter_context(send_part(port)) for _ in range(3)]
        assert send(port)[0] == 200
        assert receive_all(oldest) == b""
        for connection in others:
            connection.settimeout(0.05)
            with pytest.raises(TimeoutError):
                connection.recv(1)


def test_connection_with_a_request_in_hand_is_not_closed_for_others():
    slow = SlowClassifier()
    limits = Limits(max_connections=2, threads=1)
    with serving(slow, limits=limits) as port, ThreadPoolExecutor(1) as client, contextlib.ExitStack() as stack:
        working = client.submit(classify, port, PICTURE)
        assert slow.started.acquire(timeout=60)
        for _ in range(5):
            stack.enter_context(connect(port))
            assert send(port)[0] == 200
        slow.release.set()
        assert working.result()[0] == 200


def test_arriving_bytes_are_limited_and_the_oldest_are_given_up():
    limits = Limits(max_arriving_bytes=5_000_000)
    with serving(FakeClassifier(), limits=limits) as port, contextlib.ExitStack() as stack:
        stalled = []
        for _ in range(4):
            stalled.append(stack.enter_context(send_part(port, 3_000_000)))
            stalled[-1].sendall(bytes(2_000_000))
        assert classify(port, PICTURE)[0] == 200
        response = receive_all(stalled[0])
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in response.lower()
        stalled[-1].settimeout(0.05)
        with pytest.raises(TimeoutError):
            stalled[-1].recv(1)


def test_picture_of_a_client_that_has_left_is_not_classified():
    slow = SlowClassifier()
    with serving(slow, limits=Limits(threads=1, max_pictures=3)) as port, ThreadPoolExecutor(1) as client:
        working = client.submit(classify, port, PICTURE)
        assert slow.started.acquire(timeout=60)
        for _ in range(2):
            with connect(port) as connection:
                connection.sendall(post_head(f"Content-Length: {len(PICTURE)}") + PICTURE)
        with ThreadPoolExecutor(1) as other:
            waiting = other.submit(lambda: wait_until(lambda: classify(port, PICTURE)[0] == 200))
            slow.release.set()
            assert working.result()[0] == 200
            waiting.result(60)
    assert [slow.started.acquire(blocking=False) for _ in range(2)] == [True, False]


BROKEN = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (bytes.fromhex("16030100c8010000c4030300000000"), 400),
    "no method": (b" / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    "no host in HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "line break in a header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", 400),
    "long head": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 500_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 50_000 + b"\r\n", 431),
    "length is no number": (post_head("Content-Length: x"), 400),
    "length is negative": (post_head("Content-Length: -1"), 400),
    "length of many digits": (post_head("Content-Length: " + "9" * 5_000), 400),
    "two lengths": (post_head("Content-Length: 1", "Content-Length: 2"), 400),
    "unknown coding": (post_head("Transfer-Encoding: gzip"), 501),
    "length and coding": (post_head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "coding and length": (post_head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n", 400),
    "broken chunk": (post_head("Transfer-Encoding: chunked") + b"nonsense\r\n", 400),
    "foreign host": (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400),
    "unknown path": (b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "absolute target": (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "connect": (b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "too large": (post_head("Content-Length: 10000001"), 413),
}


@pytest.mark.parametrize("case", BROKEN)
def test_every_error_is_json_with_the_security_headers(port, case, caplog, capfd):
    content, expected = BROKEN[case]
    status, headers, document = exchange(port, content)
    assert status == expected
    assert list(document) == ["error"]
    assert headers["Content-Type"] == "application/json"
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert send(port)[0] == 200
    assert "error" not in caplog.text
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("case", ["no HTTP", "long head", "length and coding", "broken chunk"])
def test_connection_with_an_ambiguous_end_of_the_request_is_closed(port, case):
    with connect(port) as connection:
        connection.sendall(BROKEN[case][0])
        with contextlib.suppress(OSError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = receive_all(connection)
    assert response.count(b"HTTP/1.1 4") == 1
    assert b"connection: close" in response.lower()


def test_broken_body_of_a_request_without_a_response_body_is_refused(port, caplog):
    head = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(port) as connection:
        connection.sendall(head + b"nonsense\r\n")
        response = receive_all(connection)
    assert re.fullmatch(rb"HTTP/1.1 400 .*\r\n\r\n", response, re.DOTALL)
    with connect(port) as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 405 ")
        connection.sendall(b"nonsense\r\n\r\n")
        assert receive_all(connection).endswith(b"}")
    assert "error" not in caplog.text


def test_nonsense_after_a_request_in_hand_is_silent(port, caplog, capfd):
    for content in (b"nonsense\r\n\r\n", b"\x00" * 100_000):
        with connect(port) as connection:
            connection.sendall(post_head(f"Content-Length: {len(PICTURE)}") + PICTURE + content)
            assert receive_all(connection).startswith(b"HTTP/1.1 200 ")
    for _ in range(20):  # the client leaves before the response
        with connect(port) as connection:
            connection.sendall(post_head(f"Content-Length: {len(PICTURE)}") + PICTURE)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert send(port)[0] == 200
    assert "error" not in caplog.text
    assert "Traceback" not in caplog.text
    assert capfd.readouterr().err == ""


def jpeg_scans(num_scans, size=(200, 240)):
    """Build a progressive JPEG whose last scan is repeated."""
    content = encode(drawing(*size), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * num_scans + content[-2:]


def png_chunks(num_chunks):
    """Build a PNG with empty chunks before its pixels."""
    chunk = b"\x00\x00\x00\x00teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
    return PICTURE[:33] + num_chunks * chunk + PICTURE[33:]


def bits16(width, height):
    return encode(Image.fromarray(np.zeros((height, width), np.uint16)), compress_level=1)


KINDS = {
    "PNG": (PICTURE, False),
    "JPEG": (encode(drawing(), "JPEG"), False),
    "WebP": (encode(drawing(), "WEBP"), False),
    "JPEG of 12 megapixels": (encode(drawing(3_000, 4_000), "JPEG"), False),
    "progressive JPEG": (encode(drawing(), "JPEG", progressive=True), False),
    "JPEG with large EXIF": (encode(drawing(), "JPEG", exif=b"Exif\x00\x00" + bytes(60_000)), False),
    "progressive JPEG of 12 megapixels": (encode(drawing(3_000, 4_000), "JPEG", progressive=True), True),
    "JPEG of 100 scans": (jpeg_scans(100), True),
    "PNG of 5 megapixels": (encode(Image.new("L", (2_500, 2_000))), True),
    "PNG of 12 megapixels in 16 bits": (bits16(4_000, 3_000), True),
    "PNG with many chunks": (png_chunks(20_000), True),
    "GIF": (encode(drawing(), "GIF"), True),
    "text": (b"hello", True),
    "empty": (b"", True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_need_much_time_or_memory_are_known_by_their_header(kind):
    content, is_large = KINDS[kind]
    assert workers.is_large(content) == is_large


@pytest.mark.parametrize("file_format", ["WEBP", "AVIF"])
def test_formats_whose_decoders_need_much_memory_have_fewer_pixels(port, file_format, monkeypatch):
    monkeypatch.setitem(workers.MAX_PIXELS, file_format, 48_000)
    assert not workers.is_large(encode(drawing(200, 240), file_format, quality=50))
    status, _, document = classify(port, encode(drawing(200, 241), file_format, quality=50))
    assert status == 413
    assert f"megapixels as {file_format}; make it smaller or save it as JPEG" in document["error"]


class RecordingClassifier(FakeClassifier):
    """A classifier that counts the pictures that it classifies at the same time."""

    def __init__(self):
        super().__init__()
        self.lock, self.running, self.most = threading.Lock(), 0, 0

    def classify(self, source, *, name="picture"):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.05)
        with self.lock:
            self.running -= 1
        return super().classify(PICTURE)


def test_large_pictures_are_classified_one_at_a_time_and_some_are_refused():
    recording, large = RecordingClassifier(), encode(Image.new("L", (2_500, 2_000)))
    limits = Limits(threads=4, max_large_pictures=3)
    with serving(recording, limits=limits) as port, ThreadPoolExecutor(8) as clients:
        statuses = [response[0] for response in clients.map(lambda _: classify(port, large), range(16))]
    assert recording.most == 1
    assert set(statuses) == {200, 503}


def test_large_pictures_do_not_delay_small_ones():
    slow, large = SlowClassifier(), encode(Image.new("L", (2_500, 2_000)))
    limits = Limits(threads=1)
    with serving(slow, limits=limits) as port, ThreadPoolExecutor(4) as clients:
        large_ones = [clients.submit(classify, port, large) for _ in range(4)]
        assert slow.started.acquire(timeout=60)
        slow.classify = FakeClassifier().classify  # the first large one waits on
        assert classify(port, PICTURE)[0] == 200
        slow.release.set()
        assert [response.result()[0] for response in large_ones] == [200] * 4


def test_sixteen_pictures_of_24_megapixels_in_16_bits_need_less_than_600_mb(tmp_path):
    pixels = np.repeat(np.arange(6_000, dtype=np.uint16)[np.newaxis], 4_000, axis=0)
    content = encode(Image.fromarray(pixels), compress_level=1)
    with demo(tmp_path) as (process, document), ThreadPoolExecutor(16) as clients:
        port = int(document["url"].rpartition(":")[2])
        statuses = [response[0] for response in clients.map(lambda _: classify(port, content), range(16))]
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 4
    assert int(peak) < 600_000


def test_waiting_bytes_are_limited():
    slow = SlowClassifier()
    limits = Limits(threads=1, max_waiting_bytes=3 * len(PICTURE))
    with serving(slow, limits=limits) as port, ThreadPoolExecutor(4) as clients:
        responses = [clients.submit(classify, port, PICTURE) for _ in range(4)]
        wait_until(lambda: any(response.done() for response in responses))  # the last to arrive is refused at once
        slow.release.set()
        assert sorted(response.result()[0] for response in responses) == [200, 200, 200, 503]
        assert classify(port, PICTURE)[0] == 200


def test_requests_in_hand_get_503_when_the_server_stops():
    slow = SlowClassifier()
    limits = Limits(threads=1)
    with ThreadPoolExecutor(4) as clients:
        with serving(slow, limits=limits) as port:
            waiting = [clients.submit(classify, port, PICTURE) for _ in range(3)]
            assert slow.started.acquire(timeout=60)
            arriving = send_part(port)
            time.sleep(0.3)
            began = time.monotonic()
        assert time.monotonic() - began < 3
        slow.release.set()
        for response in waiting:
            status, headers, document = response.result()
            assert (status, document) == (503, {"error": "the server stops"})
            assert headers["Retry-After"] == "5"
        with arriving:
            assert receive_all(arriving).startswith(b"HTTP/1.1 503 ")


SLOW_MODEL = """
import sys, time
from fmnist.cli.main import main
from fmnist.inference.classifier import Classifier
classify = Classifier.classify
def slow(self, source, *, name="picture"):
    time.sleep(40)
    return classify(self, source, name=name)
Classifier.classify = slow
sys.argv = ["fmnist", "demo", "--port", "0", "--json"]
main()
"""


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGINT], 130), ([signal.SIGTERM], 143), ([signal.SIGINT] * 3, 130)],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C three times"],
)
def test_command_with_work_in_hand_ends_within_three_seconds(tmp_path, signals, code):
    with demo(tmp_path, "-c", SLOW_MODEL) as (process, document), ThreadPoolExecutor(2) as clients:
        port = int(document["url"].rpartition(":")[2])
        waiting = [clients.submit(classify, port, PICTURE) for _ in range(2)]
        with send_part(port):
            time.sleep(0.5)
            began = time.monotonic()
            for number in signals:
                process.send_signal(number)
                time.sleep(0.05)
            _, err = process.communicate(timeout=60)
            assert time.monotonic() - began < 3
        assert process.returncode == code
        assert "Traceback" not in err
        if len(signals) == 1:
            assert [response.result()[0] for response in waiting] == [503, 503]
        else:
            for response in waiting:
                response.exception()


def test_warnings_and_log_of_libraries_are_not_shown(tmp_path):
    corrupt_exif = encode(drawing(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12")
    palette = encode(drawing().convert("P"), transparency=bytes(range(100)))
    bomb = bytearray(encode(Image.new("L", (30, 30))))
    bomb[16:24] = (11_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with demo(tmp_path) as (process, document):
        port = int(document["url"].rpartition(":")[2])
        statuses = [classify(port, content)[0] for content in (corrupt_exif, palette, bytes(bomb), b"hello")]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert statuses[1:] == [200, 400, 400]
    assert len(err.splitlines()) == 2 + len(statuses)
    for line in err.splitlines()[2:]:
        assert re.search(r"[\d,]+ bytes: \d+ after \d+ ms", line)
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_other_address_is_announced_with_a_warning(tmp_path):
    with demo(tmp_path, "-m", "fmnist", "demo", "--port", "0", "--host", "0.0.0.0", "--json") as (process, document):
        host, _, port = document["url"].removeprefix("http://").rpartition(":")
        assert host == socket.gethostname()
        for header, status in (
            (document["url"].removeprefix("http://"), 200),
            ("192.168.0.7", 200),
            ("evil.example", 400),
        ):
            assert send(int(port), headers={"Host": header})[0] == status
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert "Warning: everybody in the network can use this server." in err


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "203.0.113.7"])
def test_unusable_address_is_one_line(cli, host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("demo", "--host", host, "--port", 0)
    assert (code, out) == (1, "")
    assert host in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_client_among_hostile_ones_is_answered_for_a_minute(small_run, tmp_path):
    benchmark = Path(__file__).parents[2] / "benchmarks" / "serving.py"
    arguments = ("--hostile", "--seconds", "60", "--run", small_run.folder, "--out", tmp_path / "result.json")
    command = [str(word) for word in (sys.executable, benchmark, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["failed"] == []
    assert result["requests"] > 60
