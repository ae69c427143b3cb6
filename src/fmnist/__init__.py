"""fmnist: a fast and strong Fashion-MNIST classifier that says "not sure".

Public names are loaded when first used, so that `import fmnist` is quick, and nothing imports Keras without need.
"""

from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fmnist.models.registration import register_with_keras

if TYPE_CHECKING:
    from fmnist.config import Config
    from fmnist.data.dataset import Dataset, load
    from fmnist.errors import FmnistError, errors_as_text
    from fmnist.evaluation.evaluate import evaluate
    from fmnist.evaluation.score import score
    from fmnist.inference.classifier import Classifier
    from fmnist.models.weights import load_model
    from fmnist.runs.run import Run, open_run
    from fmnist.training.estimator import FmnistClassifier
    from fmnist.training.progress import LiveCurves
    from fmnist.training.train import resume, train

register_with_keras()

_MODULES = {
    "Classifier": "fmnist.inference.classifier",
    "Config": "fmnist.config",
    "Dataset": "fmnist.data.dataset",
    "FmnistClassifier": "fmnist.training.estimator",
    "FmnistError": "fmnist.errors",
    "LiveCurves": "fmnist.training.progress",
    "Run": "fmnist.runs.run",
    "errors_as_text": "fmnist.errors",
    "evaluate": "fmnist.evaluation.evaluate",
    "load": "fmnist.data.dataset",
    "load_model": "fmnist.models.weights",
    "open_run": "fmnist.runs.run",
    "resume": "fmnist.training.train",
    "score": "fmnist.evaluation.score",
    "train": "fmnist.training.train",
}

__all__ = [
    "Classifier",
    "Config",
    "Dataset",
    "FmnistClassifier",
    "FmnistError",
    "LiveCurves",
    "Run",
    "__version__",
    "errors_as_text",
    "evaluate",
    "load",
    "load_model",
    "open_run",
    "resume",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes longer to import than all the rest

        return version("fmnist")
    if name not in _MODULES:
        raise AttributeError(f"module 'fmnist' has no attribute {name!r}")
    from fmnist.quiet import importing_keras

    needs_keras = _MODULES[name].startswith(("fmnist.models", "fmnist.training"))
    try:
        with importing_keras() if needs_keras else nullcontext():
            value = getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("fmnist"):
            raise
        from fmnist.errors import INSTALL_TRAINING

        hint = f"{INSTALL_TRAINING} installs it"
        if error.name in {"torch", "jax", "openvino"}:  # only Keras imports these
            hint = "Keras is told to use it by KERAS_BACKEND or keras.json: set KERAS_BACKEND=tensorflow, or install it"
        raise ImportError(f"fmnist.{name} needs the package {error.name}; {hint}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
