"""ASGI middleware: refuses foreign hosts, adds security headers, logs size and latency, answers internal errors."""

import base64
import hashlib
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fmnist.demo.api_schema import RequestError

log = logging.getLogger("fmnist")

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:(?P<port>[0-9]{1,5}))?", re.ASCII | re.IGNORECASE)
"""A Host header: a name or an address, the latter in brackets if it is one of IPv6, and a port."""
ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]


def content_security_policy(page: str) -> str:
    """Return a policy that allows the page's own script and style, by their hashes, and requests to its own server."""

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts
        )

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src 'self' data: blob:; "
        "connect-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def security_headers(page: str) -> dict[str, str]:
    """Return the security headers of every response."""
    return {**HEADERS, "Content-Security-Policy": content_security_policy(page)}


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is one of this machine that no other machine can reach."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_own_host(header: str, host: str) -> bool:
    """Tell whether a Host header names this server.

    Any other means DNS rebinding: a web site whose own name points to this machine.

    Args:
        header: the Host header of a request.
        host: the name or address that the server was told to listen on.
    """
    match = HOST.fullmatch(header)
    if not match or int(match["port"] or 0) > 65_535:
        return False
    name = match["name"].lower().strip("[]")
    if name in {"localhost", host.lower()}:
        return True
    if is_loopback(host):
        return name in {"127.0.0.1", "::1"}
    # An address is no name that a web site could point to this machine.
    machine = socket.gethostname().lower()
    return _is_address(name) or name in {machine, f"{machine}.local"}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def find_problem(headers: Headers, host: str) -> RequestError | None:
    """Return the reason why a request is refused whatever it asks for, or None.

    Args:
        headers: of the request.
        host: the name or address that the server was told to listen on.
    """
    if not is_own_host(headers.get("host", ""), host):
        return RequestError(HTTPStatus.BAD_REQUEST, "expected the name or address of this server as the Host header")
    if "content-length" in headers and "transfer-encoding" in headers:
        # A proxy may take one of them and this server the other: they would disagree where the next request begins.
        message = "expected either Content-Length or Transfer-Encoding, got both"
        return RequestError(HTTPStatus.BAD_REQUEST, message, {"Connection": "close"})
    return None


class SecurityMiddleware:
    """Refuse foreign hosts, add the security headers to every response, and log the requests to classify."""

    def __init__(self, app: ASGIApp, host: str, headers: dict[str, str], error_handler: ErrorHandler):
        """Wrap an application.

        Args:
            app: the application.
            host: the name or address that the server was told to listen on.
            headers: are added to every response.
            error_handler: returns the response to an unexpected error. Starlette's own handler is outside all
                middleware, so its response would have neither the headers nor a line in the log.
        """
        self._app = app
        self._host = host
        self._headers = headers
        self._error_handler = error_handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, num_bytes, has_started = time.perf_counter(), 0, False

        async def count_bytes() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            has_started = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
                if (scope["method"], scope["path"]) == ("POST", "/v1/classify"):
                    milliseconds = 1000 * (time.perf_counter() - start)
                    log.info("%s bytes: %d after %.0f ms", f"{num_bytes:,}", message["status"], milliseconds)
            await send(message)

        problem = find_problem(Headers(scope=scope), self._host)
        if problem:
            response = await self._error_handler(Request(scope), problem)
            await response(scope, count_bytes, send_with_headers)
            return
        try:
            await self._app(scope, count_bytes, send_with_headers)
        except Exception as error:
            if not has_started:
                response = await self._error_handler(Request(scope), error)
                await response(scope, count_bytes, send_with_headers)
            raise
