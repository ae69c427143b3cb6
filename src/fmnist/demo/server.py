"""REST and one page around a classifier, for the machine that it runs on.

A picture is read as it arrives, decoded and asked for in a thread, answered and forgotten: no file is written, and
nothing is logged but sizes and times.
"""

import asyncio
import base64
import dataclasses
import io
import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from PIL import Image

from fmnist.data import dataset as data
from fmnist.data import download as sources
from fmnist.demo.api_schema import (
    CLASSIFY_FAILURES,
    FORESEEN,
    PICTURE_BODY,
    Answer,
    Health,
    Limits,
    Model,
    Sample,
    busy,
    check_headers,
    failure,
    receive,
)
from fmnist.demo.middleware import ADDRESS, Gate, page_policy
from fmnist.errors import FmnistError
from fmnist.inference import photo
from fmnist.inference.classifier import Classifier
from fmnist.runs.run import Run

SHUTDOWN_SECONDS = 2


def create_app(
    classifier: Classifier,
    manifest: Mapping[str, Any],
    dataset: data.Dataset | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """Put REST and the page around a classifier.

    Args:
        classifier: answers.
        manifest: of its run, for the temperature.
        dataset: whose test images can be tried; None hides them.
        limits: how much to take on.

    Returns:
        The application, for any ASGI server.
    """
    limits = limits or Limits()
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    about = {"title": "fmnist", "summary": "What does a picture of a garment show?", "version": version("fmnist")}
    app = FastAPIOffline(redoc_url=None, **about)
    app.add_middleware(Gate, page_policy=page_policy(page), failure=failure)
    for kind in FORESEEN:
        app.add_exception_handler(kind, failure)
    places = asyncio.Semaphore(limits.places)
    threads = ThreadPoolExecutor(limits.threads, "picture")

    def leave(work: asyncio.Future[Any]) -> None:
        places.release()
        # Looked at, or asyncio prints the traceback of a picture that failed after its client had its 503.
        if not work.cancelled():
            work.exception()

    @app.post(
        "/v1/classify", responses=CLASSIFY_FAILURES, openapi_extra=PICTURE_BODY, response_model_exclude_unset=True
    )
    async def classify(request: Request, steps: bool = False) -> Answer:
        """Say what a picture shows: JPEG, PNG or WebP, raw in the body, at most 10 MB and 24 megapixels."""
        check_headers(request.headers, limits)
        if places.locked():
            raise busy("busy with other pictures; try again", seconds=1)
        await places.acquire()  # at once: nothing else ran since the look at it
        try:
            content = await receive(request, limits)
            work = asyncio.get_running_loop().run_in_executor(threads, look, classifier, content, steps)
        except BaseException:
            places.release()
            raise
        # A thread cannot be stopped: its place is free when it is done, not when its client has given up.
        work.add_done_callback(leave)
        try:
            return Answer.model_validate(await asyncio.wait_for(asyncio.shield(work), limits.work_seconds))
        except TimeoutError as error:
            raise busy(f"no answer within {limits.work_seconds:g} s; try a smaller picture", seconds=5) from error

    @app.get("/v1/model")
    async def model() -> Model:
        """Say which model answers."""
        return Model(
            name=classifier.name,
            class_names=list(classifier.class_names),
            temperature=manifest["temperature"],
            acceptance_threshold=classifier.acceptance.threshold if classifier.acceptance else None,
            sha256=classifier.sha256,
        )

    @app.get("/v1/samples")
    async def samples() -> list[Sample]:
        """Draw a test image of each class, others each time; none where the data set is not at hand."""
        return draw_samples(dataset) if dataset else []

    @app.get("/healthz")
    async def health() -> Health:
        """Say that the server is there."""
        return Health()

    @app.get("/", include_in_schema=False)
    async def demo() -> HTMLResponse:
        return HTMLResponse(page)

    return app


def look(classifier: Classifier, content: bytes, steps: bool) -> dict[str, Any]:
    """Decode, convert and classify a picture; in a thread.

    Args:
        classifier: answers.
        content: a file of a picture.
        steps: whether to add the pictures of the conversion.

    Returns:
        The fields of an `Answer`.

    Raises:
        FmnistError: if it is no picture that can be used.
    """
    conversion = photo.convert(photo.read(content, "what was sent"))
    answer = classifier.answer(conversion)
    if steps:
        answer["steps"] = {name: data_uri(picture) for name, picture in conversion.steps.items()}
    return answer


def data_uri(picture: Image.Image) -> str:
    """Write a picture as a PNG in a data URI."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def find_samples(run: Run) -> data.Dataset | None:
    """Give the test part of the data that a run was trained on, if it is at hand: nothing is fetched to be shown."""
    folders = [Path(run.config.data)] if run.config.data else [sources.keras_folder(), sources.DEBIAN_FOLDER]
    for folder in folders:
        try:
            dataset = data.load_from(folder)
            is_its_own = dataset.sha256 == run.environment()["data_sha256"]
        except (FmnistError, OSError):
            continue
        if is_its_own:
            # The training images would only take up memory.
            return dataclasses.replace(dataset, train_images=dataset.train_images[:0].copy())
    return None


def draw_samples(dataset: data.Dataset) -> list[Sample]:
    """Draw a test image of each class that has any."""
    random = np.random.default_rng()
    indices = [np.flatnonzero(dataset.test_labels == label) for label in range(len(dataset.class_names))]
    chosen = [int(random.choice(candidates)) for candidates in indices if len(candidates)]
    return [
        Sample(
            index=index,
            label=dataset.class_names[dataset.test_labels[index]],
            picture=data_uri(Image.fromarray(dataset.test_images[index])),
        )
        for index in chosen
    ]


def listen(port: int) -> socket.socket:
    """Open a port of this machine, which no other can reach.

    Args:
        port: its number; 0 takes one that is free.

    Raises:
        FmnistError: if it is in use or not allowed.
    """
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FmnistError(
            f"port {port} of {ADDRESS} cannot be opened ({reason}); choose another with --port, or 0 for any that is "
            "free"
        ) from error


def prepare(app: FastAPI, debug: bool = False) -> uvicorn.Server:
    """Put an application into a server; its `run(sockets=[...])` answers until Ctrl-C.

    Args:
        app: what `create_app` gave.
        debug: print the traceback of an internal error.

    Returns:
        The server. At Ctrl-C it lets requests end for `SHUTDOWN_SECONDS` at most; pictures whose turn has not come by
        then are still worked off, unheard.
    """
    config = uvicorn.Config(
        app,
        # the pure-Python parser, so that every installation reads requests by the same rules
        http="h11",
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
