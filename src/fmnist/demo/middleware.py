"""The outermost layer of the server: no foreign host name, headers that protect the page, a log of sizes and times."""

import base64
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("fmnist")

ADDRESS = "127.0.0.1"
HOST_NAMES = (ADDRESS, "localhost")
"""What a browser may call this server. Any other name is a foreign page that had its own name lead here."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# The documentation page sets styles of its own as it runs, and starts from a script in its HTML.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_policy(page: str) -> str:
    """Allow a page its own script and style, by their hashes, its own server, and nothing else."""

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts
        )

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src 'self' data: blob:; "
        "connect-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


Failure = Callable[[Request, Exception], Awaitable[Response]]


class Gate:
    """What every request passes on its way in, and every answer on its way out."""

    def __init__(self, app: ASGIApp, page_policy: str, failure: Failure):
        """Stand before an application.

        Args:
            app: the application.
            page_policy: the Content-Security-Policy of the page.
            failure: answers an error that nobody foresaw.
        """
        self._app = app
        self._page_policy = page_policy
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        policy = DOCS_POLICY if scope["path"].startswith("/docs") else self._page_policy
        started, num_bytes, is_answered = time.perf_counter(), 0, False

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            return message

        async def sent(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({**HEADERS, "Content-Security-Policy": policy})
                if (scope["method"], scope["path"]) == ("POST", "/v1/classify"):
                    milliseconds = 1000 * (time.perf_counter() - started)
                    log.info("%s bytes: %d after %.0f ms", f"{num_bytes:,}", message["status"], milliseconds)
            await send(message)

        if Headers(scope=scope).get("host", "").partition(":")[0].lower() in HOST_NAMES:
            try:
                await self._app(scope, counted, sent)
            except Exception as error:
                # Starlette's own answer would be given outside of this gate, without its headers and its log.
                if not is_answered:
                    await (await self._failure(Request(scope), error))(scope, counted, sent)
                raise
        else:
            message = f"this server is {' or '.join(HOST_NAMES)} and nothing else; ask it by one of these names"
            await JSONResponse({"error": message}, HTTPStatus.MISDIRECTED_REQUEST)(scope, counted, sent)
