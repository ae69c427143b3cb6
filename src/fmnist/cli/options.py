"""Options that several commands share, and what they select."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist.errors import TENSORFLOW_EXTRA, FmnistError
from fmnist.quiet import check_backend

if TYPE_CHECKING:
    from fmnist.runs.run import Run

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; everything else goes to stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Folder or file of another data set.", show_default=False)
]
ModelFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a finished run or an adapted model, or an exported .onnx file. `pretrained` is the model that "
        "comes with fmnist.",
        show_default="pretrained",
    ),
]
NetworkFunction = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="FUNCTION",
        help="Your own network: module:function or file.py:function, from the number of classes to a Keras model.",
        show_default=False,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="ADDRESS", help="Scheduler file or address of Dask.", show_default="this machine"
    ),
]
PRETRAINED = Path("pretrained")


def find_run(folder: Path | None) -> "Run":
    """Open a run folder, or the newest finished run if no folder is given."""
    from fmnist.runs.folders import newest_finished_run
    from fmnist.runs.run import open_run

    return open_run(folder) if folder else newest_finished_run()


def find_model(path: Path | None) -> "Run | Path":
    """Open a run folder, or the pretrained model: other models have seen studio images only.

    The folder of an adapted model and an ONNX file stay paths.

    Raises:
        FmnistError: if there is neither.
    """
    from fmnist.runs.run import open_pretrained, open_run
    from fmnist.runs.schemas import ADAPTED_FILE

    if path is None or (path == PRETRAINED and not path.exists()):
        return open_pretrained()
    if (path.suffix == ".onnx" and not path.is_dir()) or os.path.lexists(path / ADAPTED_FILE):
        return path
    return open_run(path)


def require_backend(backend: str | None) -> None:
    """Select a Keras backend, and check that it is installed.

    Args:
        backend: `tensorflow` or `jax`. None takes what KERAS_BACKEND names, or TensorFlow.

    Raises:
        FmnistError: if the backend cannot train; or if it, or TensorFlow, which writes the ONNX file under any
            backend, is not installed.
    """
    chosen = backend or os.environ.get("KERAS_BACKEND") or "tensorflow"
    os.environ["KERAS_BACKEND"] = chosen  # otherwise Keras takes the backend in its own settings file
    if not find_spec("keras"):
        raise ModuleNotFoundError(name="keras")
    check_backend(chosen)
    missing = [name for name in dict.fromkeys([chosen, "tensorflow"]) if not find_spec(name)]
    if missing == [chosen] and backend is None and chosen != "tensorflow":
        raise FmnistError(
            f"KERAS_BACKEND names the backend {chosen!r}, which is not installed; unset KERAS_BACKEND to train with "
            f"TensorFlow, or install {chosen}"
        )
    if missing:
        raise FmnistError(
            f"{' and '.join(missing)} missing: Keras needs a backend, and TensorFlow to export. Choose one: "
            "`pip install 'fmnist[tensorflow-cpu]'` (Linux on x86-64, Windows), "
            "`pip install 'fmnist[tensorflow]'` (macOS, Linux on ARM), "
            f"`pip install 'fmnist[jax,{TENSORFLOW_EXTRA}]'` for --backend jax"
        )
