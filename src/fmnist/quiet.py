"""Import Keras without TensorFlow's messages, on a backend that can train."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmnist.errors import FmnistError, one_line

BACKENDS = ("tensorflow", "jax", "torch")
"""Those of Keras' backends that can train. The others, numpy and openvino, predict only."""


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Suppress stderr, also what libraries in C++ write to it: no setting turns TensorFlow's messages at import off."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        saved = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    if sys.stderr:
        sys.stderr.flush()
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        yield
    finally:
        if sys.stderr:
            sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)


@contextmanager
def importing_keras() -> Iterator[None]:
    """Suppress stderr as `quiet_stderr` does, and name Keras' settings file if Keras cannot start with it.

    Raises:
        FmnistError: for what Keras raises, but an `ImportError`.
    """
    try:
        with quiet_stderr():
            yield
    except (ImportError, FmnistError):
        raise
    except Exception as error:
        settings = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"), "keras.json")
        raise FmnistError(
            f"Keras does not start ({one_line(error)}); correct or remove its settings file {settings}, and unset "
            "KERAS_BACKEND"
        ) from error


def check_backend(backend: str, source: str = "KERAS_BACKEND") -> None:
    """Raise an `FmnistError` if Keras cannot train with a backend.

    Args:
        backend: its name.
        source: what names it, for the error message.
    """
    if backend not in BACKENDS:
        raise FmnistError(
            f"{source} names the backend {backend!r}, with which Keras cannot train; expected tensorflow or jax, so "
            "set KERAS_BACKEND=tensorflow"
        )
