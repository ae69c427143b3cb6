"""fmnist: a strong, fast and honest Fashion-MNIST classifier.

Every public name is here. They are loaded when first used, so that `import fmnist` is quick and what needs no
Keras never imports it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmnist.config import Config
    from fmnist.data.dataset import load
    from fmnist.errors import FmnistError, errors_as_text
    from fmnist.evaluation.evaluate import evaluate
    from fmnist.inference.classifier import Classifier
    from fmnist.models.networks import load_model
    from fmnist.training.progress import LiveCurves
    from fmnist.training.train import resume, train

# ONNX Runtime's official builds report each session to their maker, on Linux since 2026. They read this when they are
# imported, so it stands before all else. Who wants to report sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Classifier": "fmnist.inference.classifier",
    "Config": "fmnist.config",
    "FmnistError": "fmnist.errors",
    "errors_as_text": "fmnist.errors",
    "evaluate": "fmnist.evaluation.evaluate",
    "LiveCurves": "fmnist.training.progress",
    "load": "fmnist.data.dataset",
    "load_model": "fmnist.models.networks",
    "resume": "fmnist.training.train",
    "train": "fmnist.training.train",
}

__all__ = [
    "Classifier",
    "Config",
    "FmnistError",
    "LiveCurves",
    "errors_as_text",
    "evaluate",
    "load",
    "load_model",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fmnist' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
