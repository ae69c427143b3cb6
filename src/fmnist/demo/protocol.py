"""uvicorn's HTTP connections, limited in number and in the time for the head of a request, with errors in JSON."""

import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any, cast

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_QUEUE = 1_024
"""Connections that wait to be accepted; a client whose connection does not fit tries again after a second or more."""
CLOSING_SECONDS = 1
"""Time for a client to read an error response before its connection is closed."""


class Protocol(H11Protocol):
    """A connection, which can be in one of two states: the server waits for the client, or the client for the server.

    A client that lets the server wait too long for the head of a request is disconnected. (Bodies have limits in
    `fmnist.demo.bodies`.) Where there are too many connections, the one that has let the server wait longest is
    closed, so that idle connections cannot keep others out.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        state = cast(FastAPI, self.config.app).state
        self._limits = state.limits
        self._error_headers: dict[str, str] = state.security_headers
        self._waiting_since = 0.0
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > self._limits.max_connections:
            waiting = [other for other in self.connections if isinstance(other, Protocol) and other.waits_for_client]
            longest = min(waiting, key=lambda other: other._waiting_since)
            self.connections.remove(longest)  # at once, so that the next connection does not close the same one again
            longest.transport.abort()

    @property
    def waits_for_client(self) -> bool:
        """Whether the client has to send the rest of a request or to read a response."""
        is_complete = self.cycle is not None and not self.cycle.more_body
        return not is_complete or self.cycle.response_complete or self.flow.write_paused

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request."""
        if not self._is_refused:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Prepare for the next request, or for the client to read the last response."""
        super().on_response_complete()
        self._wait_for_head()

    def pause_writing(self) -> None:
        """Wait for the client to read. Otherwise requests whose responses are not read would never end."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self._limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, as the client has read."""
        super().resume_writing()
        if self._send_timer:
            self._send_timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        for timer in (self._head_timer, self._send_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP. The status is the one that h11 suggests in the exception being handled."""
        status = HTTPStatus(getattr(sys.exc_info()[1], "error_status_hint", HTTPStatus.BAD_REQUEST))
        self._refuse(status, f"expected a valid HTTP request ({status.phrase})")

    def _wait_for_head(self) -> None:
        """Start the time limit: until the head of a request is complete, also if the last body never ends."""
        if self._head_timer:
            self._head_timer.cancel()
        self._waiting_since = self.loop.time()
        is_sending = self.transport.get_write_buffer_size() > 0
        seconds = self._limits.send_seconds if is_sending else self._limits.head_seconds
        self._head_timer = self.loop.call_later(seconds, self._end_wait)

    def _end_wait(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head did not arrive within {self._limits.head_seconds:g} s")
        else:
            self.transport.abort()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Send an error response if none has begun, and close the connection."""
        self._is_refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            content = json.dumps({"error": message}).encode()
            headers = {
                **self._error_headers,
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                "Connection": "close",
            }
            response = h11.Response(status_code=status, headers=list(headers.items()), reason=status.phrase.encode())
            has_body = self.conn.our_state is h11.IDLE or self.scope["method"] != "HEAD"
            for event in (response, h11.Data(data=content if has_body else b""), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        # Closing at once, with input unread, would reset the connection, and the client might lose the response.
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.loop.call_later(CLOSING_SECONDS, self.transport.abort)


class Server(uvicorn.Server):
    """A server that answers the requests in hand as soon as it is to stop."""

    async def startup(self, sockets: Any = None) -> None:
        """Start, with a long queue of connections to accept: `backlog` is how many are accepted in one go."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(MAX_QUEUE)

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop: no more connections, then answers to all requests in hand."""
        cast(FastAPI, self.config.app).state.stopping.set()
        await super().shutdown(sockets)
