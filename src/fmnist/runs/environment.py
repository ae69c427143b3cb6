"""What a result depends on besides configuration and data: versions, processor, threads."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("fmnist", "keras", "tensorflow-cpu", "tensorflow", "jax", "numpy", "onnxruntime", "scikit-learn")
NATIVE_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
VNNI_FLAGS = {"avx512_vnni", "avx_vnni"}

SETTINGS = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "TF_XLA_FLAGS")
"""Variables of the process by which TensorFlow computes in another order."""

COMPARED = ("python", "processor", "threads", "backend", "precision", *SETTINGS)
"""What a result depends on besides the versions of `PACKAGES`."""


def describe() -> dict[str, Any]:
    """Give versions, platform, processor, threads, and the `SETTINGS` that are made, as plain values."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ} | {
        "python": platform.python_version(),
        "versions": installed_versions(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "threads": num_processors(),
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say what a result depends on and is no longer as it was, item by item; the name of the system is not counted.

    Args:
        before: what `environment.json` holds.
        now: the same, of this process.
    """

    def items(description: dict[str, Any]) -> dict[str, Any]:
        counted = {name: value for name, value in description.items() if name in COMPARED}
        return counted | description["versions"]

    old, new = items(before), items(now)
    return [
        f"{name} is {new.get(name, 'gone')} and was {old.get(name, 'not there')}"
        for name in old | new
        if old.get(name) != new.get(name)
    ]


def installed_versions() -> dict[str, str]:
    """Give the version of each package that a result depends on, where it is installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def num_processors() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Name the processor, as far as the system tells."""
    return cpu_info().get("model name") or platform.processor() or platform.machine()


def has_native_bfloat16() -> bool:
    """Say whether the processor multiplies in bfloat16 itself, as far as the system tells."""
    return bool(NATIVE_BFLOAT16_FLAGS & set(cpu_info().get("flags", "").split()))


def has_vnni() -> bool:
    """Say whether the processor is known to add up products of bytes in 32 bits, where others overflow in 16."""
    return bool(VNNI_FLAGS & set(cpu_info().get("flags", "").split()))


def cpu_info() -> dict[str, str]:
    """Read what Linux tells of the first processor; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
