"""Read the bodies of requests: each within a time and at a minimum rate, all together within a number of bytes."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request

from fmnist.demo.api_schema import Limits, RequestError, too_large, unavailable


@dataclass(eq=False)
class Arrival:
    """A body that is arriving."""

    timer: asyncio.Timeout
    num_bytes: int = 0
    is_given_up: bool = False
    """Whether it has to end, because the bodies together are too large."""

    def give_up(self) -> None:
        """End the wait for the rest of it."""
        self.is_given_up = True
        if not self.timer.expired():
            self.timer.reschedule(0)


class Bodies:
    """The bodies that are arriving, the oldest first."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._arrivals: dict[Arrival, None] = {}

    async def read(self, request: Request) -> bytes:
        """Read a body, counting the bytes as they arrive: Content-Length may be missing or wrong.

        Raises:
            RequestError: if the body is too large or too slow, or the bodies together are too large.
        """
        limits, content, began = self._limits, bytearray(), asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(began + limits.receive_grace_seconds) as timer:
                arrival = Arrival(timer)
                self._arrivals[arrival] = None
                try:
                    async for chunk in request.stream():
                        content += chunk
                        if len(content) > limits.max_bytes:
                            raise too_large(limits)
                        seconds = limits.receive_grace_seconds + len(content) / limits.receive_bytes_per_second
                        timer.reschedule(began + min(limits.receive_seconds, seconds))
                        arrival.num_bytes = len(content)
                        self._give_up_oldest()
                        if arrival.is_given_up:
                            raise TimeoutError
                except BaseException:
                    content = bytearray()  # the exception refers to this frame, perhaps for long
                    raise
                finally:
                    del self._arrivals[arrival]
        except TimeoutError as error:
            if arrival.is_given_up:
                raise unavailable("busy with other pictures; try again", retry_after=1, close=True) from error
            seconds = asyncio.get_running_loop().time() - began
            message = f"only {arrival.num_bytes:,} bytes of the picture arrived within {seconds:.1f} s"
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, message, {"Connection": "close"}) from error
        return bytes(content)

    def _give_up_oldest(self) -> None:
        """Give up the oldest until the rest fit into the memory for arriving bodies.

        The oldest are those of slow clients: with a fast one, a body arrives within a moment.
        """
        excess = sum(arrival.num_bytes for arrival in self._arrivals) - self._limits.max_arriving_bytes
        for arrival in self._arrivals:
            if excess <= 0:
                return
            arrival.give_up()
            excess -= arrival.num_bytes
