"""ASGI middleware: adds security headers, logs size and latency, and answers internal errors."""

import base64
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("fmnist")

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
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


class SecurityMiddleware:
    """Add the security headers to every response, and log the requests to classify."""

    def __init__(self, app: ASGIApp, policy: str, error_handler: ErrorHandler):
        """Wrap an application.

        Args:
            app: the application.
            policy: the Content-Security-Policy of every response.
            error_handler: returns the response to an unexpected error. Starlette's own handler is outside all
                middleware, so its response would have neither the headers nor a line in the log.
        """
        self._app = app
        self._headers = {**HEADERS, "Content-Security-Policy": policy}
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

        try:
            await self._app(scope, count_bytes, send_with_headers)
        except Exception as error:
            if not has_started:
                response = await self._error_handler(Request(scope), error)
                await response(scope, count_bytes, send_with_headers)
            raise
