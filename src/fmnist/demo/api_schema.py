"""What goes over the wire: how much is taken in, the form of an answer, and the form of a refusal."""

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fmnist.errors import FmnistError
from fmnist.runs import environment

log = logging.getLogger("fmnist")


@dataclass(frozen=True)
class Limits:
    """How much the server takes on."""

    body_bytes: int = 10_000_000
    """The largest picture, counted as it arrives."""
    body_seconds: float = 15
    """For a picture to arrive; a slow sender must not keep a place for ever."""
    work_seconds: float = 30
    """For a picture to be answered, its wait for a thread included."""
    places: int = 16
    """Pictures that arrive, wait or are worked at, together; 16 of 10 MB are what a small machine can hold."""
    threads: int = environment.num_processors()
    """Pictures that are worked at together."""


class Candidate(BaseModel):
    """A class and how likely it is."""

    label: str = Field(description="Name of the class.")
    class_: int = Field(alias="class", description="Index of the class.")
    probability: float = Field(description="Calibrated, 0 to 1.")


class Answer(Candidate):
    """What a picture shows: the likeliest class, whether to believe it, and all the others."""

    acceptance: float | None = Field(description="How far the answer is to be trusted; null without a threshold.")
    accepted: bool | None = Field(description="Whether that reaches the model's threshold; null without one.")
    reason: str | None = Field(description="Why it was not accepted, in words.")
    top: list[Candidate] = Field(description="All classes by falling probability.")
    steps: dict[str, str] = Field(
        default_factory=dict,
        description="With `steps=true`: original, mask, crop, 28x28, each as a data URI of a PNG.",
    )


class Model(BaseModel):
    """The model that answers."""

    name: str
    class_names: list[str]
    temperature: float = Field(description="What the logits are divided by; it is inside the graph.")
    acceptance_threshold: float | None = Field(description="The least acceptance that counts as sure.")
    sha256: str = Field(description="Of the graph that answers.")


class Sample(BaseModel):
    """A test image, for trying."""

    index: int = Field(description="Its number among the test images, from 0.")
    label: str = Field(description="What it truly is.")
    picture: str = Field(description="Data URI of a PNG, 28x28.")


class Health(BaseModel):
    """The server answers."""

    status: str = "ok"


class Failure(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="One line: what was given, what was expected, how to mend it.")


class RefusedError(FmnistError):
    """A request that is not answered, and why."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = headers


RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
CLASSIFY_FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "No picture that can be used."},
    408: {"model": Failure, "description": "The picture took too long to arrive."},
    413: {"model": Failure, "description": "The picture has too many bytes."},
    415: {"model": Failure, "description": "Not sent as an image."},
    422: {"model": Failure, "description": "A parameter that is not what it should be."},
    503: {"model": Failure, "description": "Busy, or too slow.", "headers": RETRY_AFTER},
}
FORESEEN = (FmnistError, RequestValidationError, HTTPException, ClientDisconnect)
PICTURE_BODY = {
    "requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}


def check_headers(headers: Headers, limits: Limits) -> None:
    """Refuse by the headers alone what is no image, or says that it is too large."""
    kind = headers.get("content-type", "").strip().lower()
    if not re.fullmatch(r"image/[\w.+*-]+\s*(;.*)?", kind):
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected a picture as the body, with a Content-Type such as image/jpeg"
        )
    if int(headers.get("content-length", 0)) > limits.body_bytes:
        raise too_large(limits)


def too_large(limits: Limits) -> RefusedError:
    """Say how large a picture may be."""
    megabytes = limits.body_bytes / 1e6
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the picture is larger than {megabytes:g} MB; make it smaller"
    )


def busy(message: str, seconds: int) -> RefusedError:
    """Ask to come again after some seconds."""
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": str(seconds)})


async def receive(request: Request, limits: Limits) -> bytes:
    """Read a body, counting as it arrives, whatever its headers say."""
    content = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limits.body_bytes:
                    raise too_large(limits)
    except TimeoutError as error:
        message = f"the picture did not arrive within {limits.body_seconds:g} s"
        raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, message, {"Connection": "close"}) from error
    return bytes(content)


async def failure(_: Request, error: Exception) -> Response:
    """Answer any error as `{"error": "one line"}`, and never with more than its kind where nobody foresaw it."""
    headers = getattr(error, "headers", None)
    match error:
        case RefusedError():
            status, message = error.status, str(error)
        case FmnistError():
            status, message = HTTPStatus.BAD_REQUEST, str(error)
        case ClientDisconnect():
            status, message = HTTPStatus.BAD_REQUEST, "the connection ended before the picture did"
        case RequestValidationError():
            first = error.errors()[0]
            status, message = HTTPStatus.UNPROCESSABLE_ENTITY, f"{first['loc'][-1]}: {first['msg']}"
        case HTTPException():
            status, message = HTTPStatus(error.status_code), str(error.detail)
        case _:
            log.error("internal error (%s); --debug shows where", type(error).__name__)
            status, message = HTTPStatus.INTERNAL_SERVER_ERROR, f"internal error ({type(error).__name__})"
    return JSONResponse({"error": " ".join(message.splitlines())}, status, headers)
