"""The device that Keras computes on, and what follows from it."""

import os
from importlib.util import find_spec
from typing import Any

import keras

from fmnist.errors import FmnistError
from fmnist.runs import environment

PROGRAM_CACHE = "FMNIST_PROGRAM_CACHE"
"""Environment variable: folder for compiled programs, or `off`."""
MAX_CACHE_BYTES = 2**30
"""The programs that were used least recently are removed first."""


def choose_precision(precision: str) -> str:
    """Return the precision to train in.

    Args:
        precision: "auto", "float32" or "bfloat16".

    Returns:
        For "auto", "bfloat16" if Keras computes on a GPU, or by TensorFlow on a CPU with native bfloat16, and "float32"
        otherwise. Any other value is returned unchanged.

    Raises:
        FmnistError: for "bfloat16" under JAX on a CPU. From JAX 0.11 on, XLA computes some fused convolutions wrongly
            there (docs/log.md).
    """
    is_jax_on_cpu = keras.backend.backend() == "jax" and not is_on_gpu()
    if precision == "bfloat16" and is_jax_on_cpu:
        raise FmnistError(
            "precision is bfloat16, which JAX computes wrongly on a CPU; expected float32, or KERAS_BACKEND=tensorflow"
        )
    if precision != "auto":
        return precision
    is_native = is_on_gpu() or (environment.has_native_bfloat16() and not is_jax_on_cpu)
    return "bfloat16" if is_native else "float32"


def device_name() -> str:
    """Return the name of the GPU or CPU that Keras computes on."""
    return gpu_name() or environment.cpu_name()


def gpu_name() -> str | None:
    """Return the name of the GPU that Keras computes on. None on a CPU."""
    if not is_on_gpu():
        return None
    import jax

    return str(jax.devices()[0].device_kind)


def is_on_gpu() -> bool:
    """Check whether Keras computes on a GPU, which was measured under JAX alone."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() == "gpu"


def cache_programs() -> None:
    """Keep compiled programs between processes under JAX, in a folder of the user's cache.

    The environment can name another folder, or turn it off. A cache of JAX that the user has set stays. On a CPU
    nothing is kept unless a folder is named: compilation takes seconds there, and a program that was compiled for one
    processor can end the process on another.
    """
    if keras.backend.backend() != "jax":
        return
    import jax

    config: Any = jax.config
    named = os.environ.get(PROGRAM_CACHE)
    is_off = named == "off" or not (named or is_on_gpu())
    # Without filelock, JAX cannot bound the folder.
    if is_off or config.jax_compilation_cache_dir or not find_spec("filelock"):
        return
    cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = named or os.path.join(cache, "fmnist", "jax")
    if folder.startswith("~"):  # the user has no home
        return
    config.update("jax_compilation_cache_dir", folder)
    config.update("jax_compilation_cache_max_size", MAX_CACHE_BYTES)
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
