"""Load `fmnist demo` with hostile clients: python benchmarks/hostile_clients.py PORT --seconds 60.

`benchmarks/serving.py --hostile` starts this beside a normal client, as a process of its own. The last line of stdout
is a JSON document: what each kind of client sent, and the statuses that it got; 0 is a connection that ended without
a response.
"""

import argparse
import contextlib
import http.client
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

CHUNKED = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n"
HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
PAUSE = 0.05
"""Seconds between the requests of a client. Without pauses, the clients would take the processors from the server."""
DRIP_SECONDS = 0.5
"""Between the bytes of a slow client."""

BROKEN = [
    b"hello\r\n\r\n",
    bytes(1_000),
    b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    CHUNKED + b"\r\nzz\r\n",
    HEAD % 10**12,
    HEAD % 5 + b"12345" + b"garbage after the body\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
]
"""What is no HTTP, or not a request for this server."""


def encode(picture: Image.Image, file_format: str, **options: object) -> bytes:
    """Return the content of a picture file."""
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def many_scans(num_scans: int = 3_000) -> bytes:
    """Build a progressive JPEG whose last scan is repeated."""
    picture = Image.new("RGB", (2_000, 1_900), "white")
    ImageDraw.Draw(picture).ellipse((300, 300, 1_500, 1_600), "navy")
    content = encode(picture, "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    repeated = content[start:-2]
    return content[:start] + min(num_scans, 9_000_000 // len(repeated)) * repeated + content[-2:]


def many_markers() -> bytes:
    """Build a JPEG of 9 MB of empty comments."""
    content = encode(Image.new("RGB", (200, 200), "navy"), "JPEG")
    return content[:2] + 2_250_000 * b"\xff\xfe\x00\x02" + content[2:]


def many_chunks() -> bytes:
    """Build a PNG of 9 MB of empty chunks."""
    chunk = b"\x00\x00\x00\x00teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
    content = encode(Image.new("RGB", (200, 200), "navy"), "PNG")
    return content[:33] + 750_000 * chunk + content[33:]


def bits16() -> bytes:
    """Build a PNG of 24 megapixels with 16 bits."""
    pixels = np.repeat(np.random.default_rng(0).integers(0, 2**16, (1, 6_000), np.uint16), 4_000, axis=0)
    return encode(Image.fromarray(pixels), "PNG", compress_level=1)


def colors() -> bytes:
    """Build a PNG of 24 megapixels with colors and transparency."""
    return encode(Image.new("RGBA", (6_000, 4_000), (30, 40, 90, 200)), "PNG", compress_level=1)


def webp(width: int, height: int) -> bytes:
    """Build a WebP with transparency, whose decoder needs more memory than that of a PNG."""
    return encode(Image.new("RGBA", (width, height), (30, 40, 90, 200)), "WEBP", lossless=True, method=0)


class Hostile:
    """Hostile clients of one server."""

    def __init__(self, port: int, seconds: float):
        self._port = port
        self._deadline = time.monotonic() + seconds
        self.statuses: dict[str, Counter[int]] = {}

    def is_over(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() > self._deadline

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self._port), timeout=30)

    def exchange(self, content: bytes) -> int:
        """Send bytes over a new connection; return the status of the response, or 0."""
        with contextlib.suppress(OSError, http.client.HTTPException), self.connect() as connection:
            with contextlib.suppress(OSError):  # a refused body is not read to its end
                connection.sendall(content)
            response = http.client.HTTPResponse(connection)
            response.begin()
            response.read()
            return response.status
        return 0

    def repeat(self, name: str, contents: list[bytes]) -> None:
        """Send contents one after another, each over a new connection."""
        counts = self.statuses.setdefault(name, Counter())
        while not self.is_over():
            for content in contents:
                counts[self.exchange(content)] += 1
                time.sleep(PAUSE)

    def disconnect(self, name: str, contents: list[bytes]) -> None:
        """Send pictures, some of them in part, and reset the connection without waiting for a response."""
        counts = self.statuses.setdefault(name, Counter())
        while not self.is_over():
            for content in contents:
                for part in (content, content[: len(content) // 2]):
                    with contextlib.suppress(OSError), self.connect() as connection:
                        connection.sendall(part)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    counts[0] += 1
                    time.sleep(PAUSE)

    def drip(self, name: str, num_connections: int, first: bytes, then: bytes) -> None:
        """Keep connections open: each sends a part of a request at once, and a little more every half second.

        What the server closes is opened again.
        """
        counts = self.statuses.setdefault(name, Counter())
        connections: list[socket.socket] = []
        while not self.is_over():
            for connection in list(connections):
                try:
                    connection.sendall(then)
                except OSError:
                    connections.remove(connection)
                    connection.close()
                    counts[0] += 1
            with contextlib.suppress(OSError):
                while len(connections) < num_connections:
                    connections.append(self.connect())
                    connections[-1].settimeout(1)
                    connections[-1].sendall(first)
            time.sleep(DRIP_SECONDS)
        for connection in connections:
            connection.close()


def main() -> None:
    """Run all kinds of clients at the same time, each in threads of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()

    def request(content: bytes) -> bytes:
        return HEAD % len(content) + content

    pictures = {
        "JPEG of many scans": [many_scans()],
        "JPEG of many markers": [many_markers()],
        "PNG of many chunks": [many_chunks()],
        "PNG of 24 megapixels": [bits16(), colors()],
        "WebP of 12 and 24 megapixels": [webp(4_000, 3_000), webp(6_000, 4_000)],
        "no picture": [b"hello", b"\xff\xd8\xff\xe0" + bytes(5_000_000), bytes(9_000_000)],
    }
    requests = {name: [request(content) for content in contents] for name, contents in pictures.items()}
    small = request(encode(Image.new("RGB", (600, 800), "navy"), "JPEG"))
    hostile = Hostile(arguments.port, arguments.seconds)
    head = HEAD % 5_000_000
    work: list[tuple[Callable[..., None], tuple[object, ...], int]] = [
        *[(hostile.repeat, (name, contents), 2) for name, contents in requests.items()],
        (hostile.repeat, ("PNG of 24 megapixels with 16 bits", requests["PNG of 24 megapixels"][:1]), 14),
        (hostile.repeat, ("broken HTTP", BROKEN), 2),
        (hostile.disconnect, ("disconnects", [small, requests["PNG of 24 megapixels"][0]]), 2),
        (hostile.drip, ("unread responses", 20, 500 * PAGE, PAGE), 1),
        (hostile.drip, ("slow heads", 100, b"GET / HTTP/1.1\r\nX: ", b"x"), 1),
        (hostile.drip, ("slow bodies", 200, head + b"x", b"x" * 1_000), 1),
        (hostile.drip, ("stalled bodies", 10, head + bytes(4_900_000), b"x"), 1),
    ]
    threads = [threading.Thread(target=target, args=args) for target, args, count in work for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(hostile.statuses))


if __name__ == "__main__":
    main()
