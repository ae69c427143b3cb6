"""This machine: what a result depends on (versions, processor, threads, settings of TensorFlow), and the memory."""

import os
import platform
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fmnist.runs.schemas import Environment

PACKAGES = ("fmnist", "keras", "tensorflow-cpu", "tensorflow", "jax", "jaxlib", "numpy", "onnxruntime", "scikit-learn")
NATIVE_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
VNNI_FLAGS = {"avx512_vnni", "avx_vnni"}

SETTINGS = (
    "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "TF_XLA_FLAGS",
    "XLA_FLAGS", "JAX_DEFAULT_MATMUL_PRECISION",
)  # fmt: skip
"""Environment variables that change how TensorFlow and JAX compute."""

COMPARED = ("python", "processor", "threads", "backend", "device", "devices", "precision")
"""Fields that a result depends on, besides versions and settings. The operating system's version is not one."""

MEMINFO = Path("/proc/meminfo")
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Memory limit of a container and its use, in bytes, in versions 2 and 1 of Linux' control groups."""


def describe_environment(
    backend: str,
    precision: str,
    data_sha256: dict[str, str],
    class_names: tuple[str, ...] | None = None,
    photos_sha256: str | None = None,
    devices: int = 1,
    device: str | None = None,
) -> Environment:
    """Describe this process and the data that it trains on.

    Args:
        backend: Keras' backend.
        precision: `float32` or `bfloat16`.
        data_sha256: file name to SHA-256.
        class_names: of the data.
        photos_sha256: of the file of photos, if the network is trained on them.
        devices: number of devices that share each batch.
        device: name of the GPU, if there is one.
    """
    return Environment(
        python=platform.python_version(),
        versions=installed_versions(),
        platform=platform.platform(),
        processor=cpu_name(),
        threads=num_cpus(),
        settings={name: os.environ[name] for name in SETTINGS if name in os.environ},
        backend=backend,
        devices=devices,
        device=device,
        precision=precision,
        data_sha256=data_sha256,
        class_names=class_names,
        photos_sha256=photos_sha256,
    )


def environment_changes(before: Environment, now: Environment) -> list[str]:
    """List the differences that can change a result, one sentence part each."""

    def items(environment: Environment) -> dict[str, Any]:
        fields = {name: getattr(environment, name) for name in COMPARED}
        return {**fields, **environment.settings, **environment.versions}

    old, new = items(before), items(now)
    return [
        f"{name} is {new.get(name, 'missing')} (was {old.get(name, 'missing')})"
        for name in old | new
        if old.get(name) != new.get(name)
    ]


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the version of each package that is installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def version_differences(expected: Mapping[str, str]) -> list[str]:
    """Return each package whose installed version is not the expected one, with both."""
    found = installed_versions(expected)
    return [
        f"{name} {found.get(name, 'missing')}, not {version}"
        for name, version in expected.items()
        if found.get(name) != version
    ]


def num_cpus() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the name of the processor, as far as the system reports it."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def has_native_bfloat16() -> bool:
    """Check whether the processor multiplies in bfloat16, as far as the system reports it."""
    return bool(NATIVE_BFLOAT16_FLAGS & set(_cpu_info().get("flags", "").split()))


def has_vnni() -> bool:
    """Check whether the processor accumulates int8 products in 32 bits. Without VNNI, 16-bit sums can saturate."""
    return bool(VNNI_FLAGS & set(_cpu_info().get("flags", "").split()))


def _cpu_info() -> dict[str, str]:
    """Read what Linux reports of the first processor. Returns an empty dictionary on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def available_memory() -> int | None:
    """Return the memory in bytes that a new program can use, within the limit of a container; None if unknown."""
    match = re.search(r"^MemAvailable: +(\d+) kB", MEMINFO.read_text(), re.M) if MEMINFO.is_file() else None
    values = [int(match[1]) * 1024] if match else []
    for limit_path, used_path in CGROUPS:
        if limit_path.is_file() and used_path.is_file() and (limit := limit_path.read_text().strip()).isdigit():
            values.append(max(0, int(limit) - int(used_path.read_text())))
    return min(values, default=None)
