"""The REST interface: its limits, its request and responses as in the OpenAPI document, and its error responses."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fmnist.errors import FmnistError
from fmnist.inference.prediction import Prediction
from fmnist.runs.environment import num_cpus

log = logging.getLogger("fmnist")


@dataclass(frozen=True)
class Limits:
    """Limits of the server."""

    max_bytes: int = 10_000_000
    """Size of a picture, counted as it arrives."""
    max_connections: int = 150
    """Open at once. Systems allow a process 256 open files or more."""
    head_seconds: float = 5
    """Time for the head of a request to arrive, from the start of the connection or the end of the last response."""
    send_seconds: float = 15
    """Time for a client to read a response."""
    receive_seconds: float = 15
    """Time for a picture to arrive."""
    receive_grace_seconds: float = 3
    """Time for a picture to arrive before the minimum rate counts."""
    receive_bytes_per_second: float = 100_000
    """Minimum rate at which a picture arrives."""
    max_arriving_bytes: int = 30_000_000
    """Size of all pictures together that are arriving. Beyond it, the oldest are given up."""
    max_waiting_bytes: int = 20_000_000
    """Size of all pictures together that are waiting or being classified; for small and for large pictures."""
    max_pictures: int = 16
    """Pictures that are waiting or being classified."""
    max_large_pictures: int = 4
    """Pictures that are waiting or being classified one at a time, because they may take much time or memory."""
    classify_seconds: float = 30
    """Time to classify a picture, including its wait for a thread."""
    threads: int = num_cpus()
    """Pictures classified at once."""


class Model(BaseModel):
    """The model that classifies."""

    name: str
    class_names: list[str]
    temperature: float = Field(description="Divisor of the logits, applied inside the graph.")
    confidence_threshold: float | None = Field(
        description="Confidence from which a prediction is accepted; null without a rejection rule."
    )
    photo_confidence_threshold: float | None = Field(description="The same for photos.")
    sha256: str = Field(description="SHA-256 of the model's ONNX graph.")


class Sample(BaseModel):
    """A test image to try."""

    index: int = Field(description="Index among the test images, from 0.")
    label: str = Field(description="Name of its true class.")
    picture: str = Field(description="Data URI of a PNG, 28x28.")


class Health(BaseModel):
    """The server is running."""

    status: str = "ok"


class Failure(BaseModel):
    """The reason why a request failed."""

    error: str = Field(description="One line: what was given, what was expected, what to do.")


class RequestError(FmnistError):
    """A request that is refused, with the status and headers of the response."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = headers


HANDLED_ERRORS = (FmnistError, RequestValidationError, HTTPException, ClientDisconnect)
REFERENCE = "#/components/schemas/{name}"
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
CLASSIFY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"schema": {"$ref": REFERENCE.format(name="Prediction")}}}},
    400: {"model": Failure, "description": "The body is not a usable picture."},
    408: {"model": Failure, "description": "The picture took too long to arrive."},
    413: {"model": Failure, "description": "The picture has too many bytes or pixels."},
    415: {"model": Failure, "description": "The Content-Type is not that of an image."},
    422: {"model": Failure, "description": "A query parameter is invalid."},
    503: {
        "model": Failure,
        "description": "The server is busy or stops, or classifying took too long.",
        "headers": RETRY_AFTER,
    },
}
PICTURE_BODY = {
    "requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}


def document_prediction(app: FastAPI) -> None:
    """Add the schema of `Prediction` to the application's OpenAPI document, once all routes are there."""
    _, schemas = msgspec.json.schema_components([Prediction], ref_template=REFERENCE)
    app.openapi()["components"]["schemas"].update(schemas)


def check_headers(headers: Headers, limits: Limits) -> None:
    """Check the content type and, if it is given, the content length.

    Raises:
        RequestError: if the body is not an image or too large.
    """
    content_type = headers.get("content-type", "").strip().lower()
    if not re.fullmatch(r"image/[\w.+*-]+\s*(;.*)?", content_type):
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected a picture as the body, with a Content-Type such as image/jpeg"
        )
    if int(headers.get("content-length", 0)) > limits.max_bytes:
        raise too_large(limits)


def too_large(limits: Limits) -> RequestError:
    """Return the error for a picture of too many bytes."""
    megabytes = limits.max_bytes / 1e6
    return RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the picture is larger than {megabytes:g} MB; make it smaller"
    )


def unavailable(message: str, retry_after: int, close: bool = False) -> RequestError:
    """Return the error that asks the client to try again after some seconds, with or without closing the connection."""
    headers = {"Retry-After": str(retry_after)} | ({"Connection": "close"} if close else {})
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, message, headers)


async def error_response(_: Request, error: Exception) -> JSONResponse:
    """Return any error as `{"error": "one line"}`. For an unexpected error only its type is shown."""
    match error:
        case RequestError():
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
    return JSONResponse({"error": " ".join(message.splitlines())}, status, getattr(error, "headers", None))
