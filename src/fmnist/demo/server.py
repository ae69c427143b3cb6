"""A REST server and a page around a classifier, reachable from this machine only.

A picture is read as it arrives, decoded and classified in a thread, and then discarded. No file is written. Only
sizes and latencies are logged.
"""

import asyncio
import dataclasses
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware

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
    read_body,
    unavailable,
)
from fmnist.demo.middleware import SecurityMiddleware, content_security_policy
from fmnist.errors import FmnistError
from fmnist.inference.classifier import Classifier
from fmnist.inference.prediction import data_uri
from fmnist.runs.run import Run
from fmnist.runs.schemas import Manifest

ADDRESS = "127.0.0.1"
HOST_NAMES = (ADDRESS, "localhost")
"""Accepted Host headers. Any other means DNS rebinding: a web site whose own name points to this machine."""
SHUTDOWN_SECONDS = 2
"""Time for open requests to end after Ctrl-C."""


def create_app(
    classifier: Classifier, manifest: Manifest, dataset: Dataset | None = None, limits: Limits | None = None
) -> FastAPI:
    """Build the application: the REST interface and the page.

    Args:
        classifier: the model.
        manifest: of the model's run, for the temperature.
        dataset: its test images are offered as samples; None offers none.
        limits: sizes, times and numbers of requests; None takes the defaults.

    Returns:
        The application, for any ASGI server.
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
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOST_NAMES)
    # The middleware that is added last is the outermost: a refused host gets the security headers too.
    app.add_middleware(SecurityMiddleware, policy=content_security_policy(page), error_handler=error_response)
    for error_type in HANDLED_ERRORS:
        app.add_exception_handler(error_type, error_response)
    slots = threading.Semaphore(limits.max_pictures)
    pool = ThreadPoolExecutor(limits.threads, "classify")

    @app.post("/v1/classify", responses=CLASSIFY_RESPONSES, openapi_extra=PICTURE_BODY)
    async def classify(request: Request, steps: bool = False) -> JSONResponse:
        """Classify a picture: JPEG, PNG or WebP, raw in the body, at most 10 MB and 24 megapixels."""
        check_headers(request.headers, limits)
        if not slots.acquire(blocking=False):
            raise unavailable("busy with other pictures; try again", retry_after=1)
        try:
            content = await read_body(request, limits)
            work = pool.submit(
                lambda: classifier.classify(content, name="the request body").to_json(include_steps=steps)
            )
        except BaseException:
            slots.release()
            raise
        # A running thread cannot be stopped: its slot is free when it is done, not when the client has its 503.
        work.add_done_callback(lambda _: slots.release())
        try:
            return JSONResponse(await asyncio.wait_for(asyncio.wrap_future(work), limits.classify_seconds))
        except TimeoutError as error:
            message = f"no result within {limits.classify_seconds:g} s; try a smaller picture"
            raise unavailable(message, retry_after=5) from error

    @app.get("/v1/model")
    async def model() -> Model:
        """Describe the model."""
        return Model(
            name=classifier.name,
            class_names=list(classifier.class_names),
            temperature=manifest.temperature,
            confidence_threshold=classifier.rejection_rule.threshold if classifier.rejection_rule else None,
            sha256=classifier.sha256,
        )

    @app.get("/v1/samples")
    async def samples() -> list[Sample]:
        """Draw a random test image of each class; none if the data set is not on this machine."""
        return draw_samples(dataset) if dataset else []

    @app.get("/healthz")
    async def health() -> Health:
        """Report that the server is running."""
        return Health()

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    document_prediction(app)
    return app


def find_samples(run: Run) -> Dataset | None:
    """Load the test images of the data that a run was trained on, without downloading anything.

    Returns:
        The data set without its training images, which would only use memory; None if it is not on this machine.
    """
    folders = [Path(run.config.data)] if run.config.data else [keras_folder(), DEBIAN_FOLDER]
    for folder in folders:
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


def listen(port: int) -> socket.socket:
    """Open a port on this machine's loopback address, which no other machine can reach.

    Args:
        port: its number; 0 takes a free one.

    Raises:
        FmnistError: if the port is in use or not allowed.
    """
    try:
        listener = socket.create_server((ADDRESS, port))
        # Accepted connections inherit it. Without it, each response on a kept connection waits 40 ms for the client's
        # acknowledgment of the response before: asyncio sets it only on sockets that it opened itself.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        return listener
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FmnistError(
            f"port {port} of {ADDRESS} cannot be opened ({reason}); choose another with --port, or 0 for a free one"
        ) from error


def make_server(app: FastAPI, debug: bool = False) -> uvicorn.Server:
    """Build the server of an application. Its `run(sockets=[...])` returns after Ctrl-C.

    Args:
        app: from `create_app`.
        debug: print the traceback of an internal error.

    Returns:
        The server. After Ctrl-C, open requests have `SHUTDOWN_SECONDS` to end.
    """
    config = uvicorn.Config(
        app,
        http="h11",  # the pure-Python parser, so that every installation parses requests by the same rules
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error" if debug else "critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return uvicorn.Server(config)
