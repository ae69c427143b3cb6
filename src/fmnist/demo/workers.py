"""Classify pictures in threads: large ones one at a time, so that neither time nor memory runs out for the others."""

import asyncio
import gc
import io
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from threading import Lock
from typing import Any, TypeVar

from PIL import Image

from fmnist.demo.api_schema import Limits, RequestError, unavailable

Result = TypeVar("Result")

SMALL_PIXELS = 2_500_000
"""Of a picture that is decoded beside others. It takes at most 60 MB meanwhile, one of 24 megapixels up to 400 MB."""
SMALL_SCANS = 20
"""Of a JPEG that is decoded beside others: twice as many as progressive JPEGs usually have."""
MAX_PIXELS = {"WEBP": 12_000_000, "AVIF": 12_000_000}
"""Of a picture in a format whose decoder needs twice as much memory as others."""
PARTLY_READ = (b"\xff\xd8", b"\x89P")
"""First bytes of JPEG and PNG, which can be opened without their end."""
HEADER_BYTES = 128_000
"""Of a picture in these formats, to find its size; more than a camera's metadata."""
JPEG_EDGE = 640
"""A JPEG can be decoded at a fraction of its size that is at least this wide and high."""
START_OF_SCAN = b"\xff\xda"


def is_large(content: bytes) -> bool:
    """Tell by its header whether decoding a picture may take much time or memory.

    Returns:
        False for a JPEG, PNG, WebP or AVIF of at most `SMALL_PIXELS`, as they are decoded. True for everything else,
        also for what is no picture.

    Raises:
        RequestError: if the picture has more pixels than `MAX_PIXELS` allows.
    """
    header = content[:HEADER_BYTES] if content[:2] in PARTLY_READ else content
    try:
        with Image.open(io.BytesIO(header), formats=("JPEG", "PNG", "WEBP", "AVIF")) as picture:
            if picture.format == "JPEG":
                # Several scans are decoded into one buffer of all pixels, a single one directly at a fraction.
                num_scans = content.count(START_OF_SCAN, picture.fp.tell()) + 1  # type: ignore[union-attr]
                if num_scans > SMALL_SCANS:
                    return True
                if num_scans == 1:
                    picture.draft(None, (JPEG_EDGE, JPEG_EDGE))
            file_format, num_pixels = picture.format or "", picture.width * picture.height
    except Exception:
        return True
    if num_pixels > MAX_PIXELS.get(file_format, num_pixels):
        megapixels = MAX_PIXELS[file_format] // 10**6
        message = (
            f"the picture has more than {megapixels} megapixels as {file_format}; make it smaller or save it as JPEG"
        )
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
    return num_pixels > SMALL_PIXELS


class Capacity:
    """Places for a number of pictures with a number of bytes. Threads can use it at the same time."""

    def __init__(self, max_pictures: int, max_bytes: int):
        self._places, self._bytes, self._lock = max_pictures, max_bytes, Lock()

    def take(self, content: bytes) -> None:
        """Take a place.

        Raises:
            RequestError: if there is none.
        """
        with self._lock:
            if self._places < 1 or self._bytes < len(content):
                raise unavailable("busy with other pictures; try again", retry_after=1)
            self._places -= 1
            self._bytes -= len(content)

    def leave(self, content: bytes) -> None:
        """Give a place back."""
        with self._lock:
            self._places += 1
            self._bytes += len(content)


class Workers:
    """Threads for small pictures, and one for large pictures."""

    def __init__(self, limits: Limits):
        self._small = ThreadPoolExecutor(limits.threads, "small")
        self._large = ThreadPoolExecutor(1, "large")
        self._small_capacity = Capacity(limits.max_pictures, limits.max_waiting_bytes)
        self._large_capacity = Capacity(limits.max_large_pictures, limits.max_waiting_bytes)

    async def run(self, function: Callable[[bytes], Result], content: bytes) -> Result:
        """Call a function with the content of a picture in one of the threads.

        A running thread cannot be stopped: the picture's place is free when it is done, not when the client has left.

        Raises:
            RequestError: if too many pictures are waiting.
        """
        if await _submit(self._small, self._small_capacity, is_large, content):
            return await _submit(self._large, self._large_capacity, _after_collection(function), content)
        return await _submit(self._small, self._small_capacity, function, content)


def _after_collection(function: Callable[[bytes], Result]) -> Callable[[bytes], Result]:
    """Return the function, to be called after Python has freed what is left of the large picture before.

    The errors of decoders refer to themselves, and with them to the picture. Python looks for such cycles by the number
    of objects, and not by their size.
    """

    def call(content: bytes) -> Result:
        gc.collect()
        return function(content)

    return call


def _submit(
    pool: ThreadPoolExecutor, capacity: Capacity, function: Callable[[bytes], Result], content: bytes
) -> Awaitable[Result]:
    """Call a function in a thread of a pool. A canceled call that waits for a thread is dropped."""
    capacity.take(content)

    def leave(_: Future[Result]) -> None:
        capacity.leave(content)

    work = pool.submit(function, content)
    work.add_done_callback(leave)
    return asyncio.wrap_future(work)


async def run_unless(
    work: Coroutine[Any, Any, Result], *ends: tuple[Coroutine[Any, Any, Any], Exception], seconds: float | None = None
) -> Result:
    """Run a coroutine unless something else happens first, which cancels it.

    Args:
        work: the coroutine.
        ends: pairs of a coroutine that returns when the work has to end, and the exception to raise then.
        seconds: time limit for the work.

    Returns:
        The result of the work.

    Raises:
        TimeoutError: if the work takes longer than `seconds`.
    """
    task = asyncio.ensure_future(work)
    errors = {asyncio.ensure_future(end): error for end, error in ends}
    done: set[asyncio.Future[Any]] = set()
    try:
        done, _ = await asyncio.wait({task, *errors}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        raise next((error for end, error in errors.items() if end in done), TimeoutError())
    finally:
        for waiting in (task, *errors):
            waiting.cancel()
        # An exception refers to this frame. If the frame referred to the exception, pictures would stay in memory until
        # Python looks for cycles.
        del task, errors, waiting, done, work, ends
