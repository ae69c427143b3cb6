"""A REST server and a page around a classifier, reachable from this machine only unless asked otherwise.

A picture is read as it arrives, decoded and classified in a thread, and then discarded. No file is written. Only
sizes and latencies are logged.
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import logging
import os
import socket
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.requests import ClientDisconnect

from fmnist.data.dataset import Dataset, load_from
from fmnist.data.download import DEBIAN_FOLDER, keras_folder
from fmnist.demo.api_schema import (
    CLASSIFY_RESPONSES,
    HANDLED_ERRORS,
    PICTURE_BODY,
    Health,
    Limits,
    Model,
    Sample,
    check_headers,
    document_prediction,
    error_response,
    unavailable,
)
from fmnist.demo.bodies import Bodies
from fmnist.demo.middleware import SecurityMiddleware, security_headers
from fmnist.demo.protocol import Protocol, Server
from fmnist.demo.workers import Workers, run_unless
from fmnist.errors import FmnistError
from fmnist.inference.classifier import Classifier
from fmnist.inference.prediction import data_uri
from fmnist.runs.data import recorded_path
from fmnist.runs.run import Run
from fmnist.runs.schemas import AdaptedRecord, Manifest

ADDRESS = "127.0.0.1"
M_MMAP_THRESHOLD = -3
"""glibc's number of the option of `mallopt` from which size blocks are returned to the system when they are freed."""
BACKLOG = 16
"""Connections that are accepted in one go. Four times as many can be open beyond `max_connections` for a moment."""
SHUTDOWN_SECONDS = 2
"""Time for clients to receive the last responses after Ctrl-C."""


def create_app(
    classifier: Classifier,
    manifest: Manifest | AdaptedRecord,
    dataset: Dataset | None = None,
    limits: Limits | None = None,
    host: str = ADDRESS,
) -> FastAPI:
    """Build the application: the REST interface and the page.

    Args:
        classifier: the model.
        manifest: of the model's run, or what an adapted model records, for the temperature.
        dataset: its test images are offered as samples; None offers none.
        limits: sizes, times and numbers of requests; None takes the defaults.
        host: the name or address that the server listens on. Requests to other names are refused.

    Returns:
        The application, for `make_server`.
    """
    limits = limits or Limits()
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    app = FastAPI(
        title="fmnist",
        summary="Classify a picture of a garment.",
        version=version("fmnist"),
        docs_url=None,  # it would load its scripts from a content delivery network
        redoc_url=None,
    )
    headers, stopping = security_headers(page), asyncio.Event()
    app.state.limits, app.state.security_headers, app.state.stopping = limits, headers, stopping
    app.add_middleware(SecurityMiddleware, host=host, headers=headers, error_handler=error_response)
    for error_type in HANDLED_ERRORS:
        app.add_exception_handler(error_type, error_response)
    bodies, workers = Bodies(limits), Workers(limits)
    drawn = draw_samples(dataset) if dataset else []

    @app.post("/v1/classify", responses=CLASSIFY_RESPONSES, openapi_extra=PICTURE_BODY)
    async def classify(request: Request, steps: bool = False) -> JSONResponse:
        """Classify a picture, whose file is the body: JPEG, PNG, WebP and others, of at most 10 MB."""

        def to_json(content: bytes) -> dict[str, Any]:
            return classifier.classify(content, name="the request body").to_json(include_steps=steps)

        check_headers(request.headers, limits)
        stop = unavailable("the server stops", retry_after=5, close=True)
        content = await run_unless(bodies.read(request), (stopping.wait(), stop))
        try:
            result = await run_unless(
                workers.run(to_json, content),
                (stopping.wait(), stop),
                (wait_for_disconnect(request), ClientDisconnect()),
                seconds=limits.classify_seconds,
            )
        except TimeoutError as error:
            message = f"no result within {limits.classify_seconds:g} s; try a smaller picture"
            raise unavailable(message, retry_after=5) from error
        return JSONResponse(result)

    @app.get("/v1/model")
    async def model() -> Model:
        """Describe the model."""
        return Model(
            name=classifier.name,
            class_names=list(classifier.class_names),
            temperature=manifest.temperature,
            confidence_threshold=classifier.threshold,
            photo_confidence_threshold=classifier.photo_threshold,
            sha256=classifier.sha256,
        )

    @app.get("/v1/samples")
    async def samples() -> list[Sample]:
        """List a random test image of each class, drawn at the start; none if the data set is not on this machine."""
        return drawn

    @app.get("/healthz")
    async def health() -> Health:
        """Report that the server is running."""
        return Health()

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    document_prediction(app)
    return app


async def wait_for_disconnect(request: Request) -> None:
    """Wait until the client of a request whose body was read has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def find_samples(run: Run) -> Dataset | None:
    """Load the test images of the data that a run was trained on, without downloading anything.

    Returns:
        The data set without its training images, which would only use memory; None if it is not on this machine.
    """
    path = recorded_path(run)
    for folder in [Path(path)] if path else [keras_folder(), DEBIAN_FOLDER]:
        try:
            dataset = load_from(folder)
            is_same_data = dataset.sha256 == run.environment().data_sha256
        except (FmnistError, OSError):
            continue
        if is_same_data:
            return dataclasses.replace(dataset, train_images=dataset.train_images[:0].copy())
    return None


def draw_samples(dataset: Dataset) -> list[Sample]:
    """Draw a random test image of each class that has any."""
    rng = np.random.default_rng()
    indices = [np.flatnonzero(dataset.test_labels == label) for label in range(len(dataset.class_names))]
    chosen = [int(rng.choice(candidates)) for candidates in indices if len(candidates)]
    return [
        Sample(
            index=index,
            label=dataset.class_names[dataset.test_labels[index]],
            picture=data_uri(Image.fromarray(dataset.test_images[index])),
        )
        for index in chosen
    ]


def listen(port: int, host: str = ADDRESS) -> socket.socket:
    """Open a port.

    Args:
        port: its number; 0 takes a free one.
        host: a name or address of this machine. No other machine can reach its loopback address, the default.

    Raises:
        FmnistError: if the port is in use or not allowed, or the machine has no such address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family)
        # Accepted connections inherit it. Without it, each response on a kept connection waits 40 ms for the client's
        # acknowledgment of the response before: asyncio sets it only on sockets that it opened itself.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        return listener
    except (socket.gaierror, UnicodeError) as error:
        raise FmnistError(
            f"{host!r} is no address of this machine; expected --host {ADDRESS} for this machine only, or "
            "--host 0.0.0.0 for all machines in the network"
        ) from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FmnistError(
            f"port {port} of {host} cannot be opened ({reason}); choose another with --port, or 0 for a free one"
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the address of a server's page, for a browser; of a server on all addresses, by this machine's name."""
    address, port = listener.getsockname()[:2]
    if address in {"0.0.0.0", "::"}:
        address = socket.gethostname()
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def prepare_process(debug: bool) -> None:
    """Prepare this process for serving: bound its memory, and keep what libraries report off stderr.

    Args:
        debug: show what libraries report.
    """
    # Searches for unreachable objects need not look at what stays until the end.
    gc.freeze()
    # glibc keeps freed memory, the more the larger the blocks were. With a fixed limit it returns all large blocks.
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**18)
    if not debug:  # warnings name files of this machine, and may quote a request
        warnings.simplefilter("ignore")
        for name in ("PIL", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def make_server(app: FastAPI, debug: bool = False) -> Server:
    """Build the server of an application. Its `run(sockets=[...])` returns after Ctrl-C.

    Args:
        app: from `create_app`.
        debug: print the traceback of an internal error.

    Returns:
        The server. After Ctrl-C, it answers all requests in hand with 503, and ends within `SHUTDOWN_SECONDS`.
    """
    config = uvicorn.Config(
        app,
        http=Protocol,  # by h11, the pure-Python parser, so that every installation parses requests by the same rules
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error" if debug else "critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return Server(config)
