"""Check whether this machine can train and predict, with a hint for each problem.

Each `check_*` function turns facts into a `Check`. `check_machine` collects them. The base installation is enough.
"""

import os
import platform
import shutil
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fmnist.data import download
from fmnist.data.dataset import load
from fmnist.data.network import check_host_of_apt, open_url
from fmnist.errors import INSTALL_TRAINING, FmnistError, one_line
from fmnist.quiet import check_backend
from fmnist.runs.environment import PACKAGES, available_memory, cpu_name, has_native_bfloat16, num_cpus
from fmnist.runs.folders import RUNS_FOLDER

TIMEOUT, KERAS_TIMEOUT = 3, 120
"""Seconds: for the response of a host, and for the start of Keras."""
GB = 10**9
MIN_MEMORY, RECOMMENDED_MEMORY = 1.6 * GB, 3 * GB
"""Bytes. Training the preset `fast` takes 1.56 GB at its peak (docs/log.md)."""
MIN_DISK, RECOMMENDED_DISK = 0.1 * GB, 1 * GB
"""Bytes. The data takes 31 MB, a run about 5 MB."""
Versions = dict[str, str]
"""Normalized name of each installed distribution, and its version."""
Problems = dict[str, str | None]
"""Name of each data source, and why it cannot be used; None if it can."""


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    status: Literal["ok", "warning", "error"]
    """`error` if training the default preset cannot work."""
    found: str
    hint: str | None = None
    """What to do; None if the status is `ok`."""


def check_machine() -> list[Check]:
    """Check everything that training and prediction need, in the order in which problems should be fixed.

    Nothing is written, except by Keras when it starts. Each host of the data gets at most one request.
    """
    folder = RUNS_FOLDER if RUNS_FOLDER.is_dir() else Path.cwd()
    data_folder = os.environ.get("FMNIST_DATA")
    data_problem = _problem(lambda: load(data_folder)) if data_folder else None
    local = {name: _problem(read) for name, read in LOCAL_SOURCES.items()}
    package = metadata.metadata("fmnist")
    # Python imports the first of two distributions with the same name, so the first is entered last.
    distributions = reversed([each for each in metadata.distributions() if each.name])
    versions: Versions = {canonicalize_name(each.name): each.version for each in distributions}
    return [
        check_python(platform.python_version(), package["Requires-Python"]),
        *check_packages(package.get_all("Requires-Dist", []), package.get_all("Provides-Extra", []), versions),
        check_tensorflow(metadata.packages_distributions().get("tensorflow", []), versions),
        check_keras(start_keras() if "keras" in versions else None, os.environ.get("KERAS_BACKEND")),
        check_processor(cpu_name(), num_cpus(), has_native_bfloat16()),
        check_memory(available_memory()),
        check_disk(folder.absolute(), shutil.disk_usage(folder).free, os.access(folder, os.W_OK)),
        *check_data(data_folder, data_problem, local, request_hosts()),
        check_browser(),
    ]


def can_train(checks: list[Check]) -> bool:
    """Return whether no check found an error."""
    return all(check.status != "error" for check in checks)


def summarize(checks: list[Check]) -> str:
    """Format one sentence on what this machine can do. Prediction needs Python and the base packages only."""
    if can_train(checks):
        return "This machine can train."
    can_predict = can_train([check for check in checks if check.name in {"Python", "packages"}])
    ability = "predict but not train" if can_predict else "neither train nor predict"
    return f"This machine can {ability}: fix the errors first."


def check_python(version: str, bounds: str) -> Check:
    """Check the version of Python."""
    if SpecifierSet(bounds).contains(version, prereleases=True):
        return Check("Python", "ok", version)
    return Check("Python", "error", version, f"install Python {bounds} and create a new environment with it")


def check_packages(requirements: list[str], extras: list[str], versions: Versions) -> tuple[Check, Check]:
    """Check the versions of the base and of the installed extras against the metadata of this package.

    An extra is installed if all its packages are; `train` is installed as soon as Keras is.
    """
    parsed = [Requirement(line) for line in requirements]
    base = [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]
    installed: dict[str, list[Requirement]] = {}
    for extra in extras:
        added = [each for each in parsed if each not in base and each.marker and each.marker.evaluate({"extra": extra})]
        # Whether the CUDA part of jax[cuda12] is installed cannot be seen from jax itself.
        is_complete = added and all(each.name in versions and not each.extras for each in added)
        if is_complete or (extra == "train" and "keras" in versions):
            installed[extra] = added
    needed = [each for added in installed.values() for each in added]
    return (
        _check_versions("packages", base, versions, "`pip install fmnist`"),
        _check_versions("extras", needed, versions, f"`pip install 'fmnist[{','.join(installed)}]'`"),
    )


def _check_versions(name: str, requirements: list[Requirement], versions: Versions, hint: str) -> Check:
    found = {each.name: versions.get(each.name) for each in requirements}
    if missing := [package for package, version in found.items() if version is None]:
        return Check(name, "error", f"missing: {', '.join(missing)}", hint)
    outside = [each for each in requirements if not each.specifier.contains(versions[each.name], prereleases=True)]
    if outside:
        texts = [f"{each.name} {versions[each.name]} (expected {each.specifier})" for each in outside]
        return Check(name, "warning", ", ".join(dict.fromkeys(texts)), hint)
    shown = ", ".join(f"{package} {version}" for package, version in found.items() if package in PACKAGES)
    return Check(name, "ok", f"all {len(found)} within their bounds: {shown}" if found else "none installed")


def check_tensorflow(distributions: list[str], versions: Versions) -> Check:
    """Check that at most one distribution, such as tensorflow-cpu or tf-nightly, installs the package `tensorflow`."""
    names = sorted({canonicalize_name(name) for name in distributions})
    found = " and ".join(f"{name} {versions[name]}" for name in names)
    if len(names) < 2:
        return Check("TensorFlow", "ok", found or "not installed")
    hint = f"`pip uninstall --yes {' '.join(names)}`, then {INSTALL_TRAINING}"
    return Check("TensorFlow", "warning", f"{found} overwrite each other's files", hint)


def check_keras(start: tuple[int, str] | None, chosen: str | None = None) -> Check:
    """Check how importing Keras ended, as `start_keras` returns it, with `chosen` as KERAS_BACKEND. None: no Keras."""
    if start is None:
        return Check("Keras", "error", "not installed", INSTALL_TRAINING)
    if chosen and (problem := _problem(lambda: check_backend(chosen))):
        return Check("Keras", "error", problem, "unset KERAS_BACKEND")
    exit_code, last_line = start
    if exit_code == 0:
        return Check("Keras", "ok", f"starts: {last_line}")
    if exit_code < 0:
        hint = "the processor lacks instructions that TensorFlow needs, or memory ran out; try another machine"
        return Check("Keras", "error", f"stopped by signal {-exit_code} while it started", hint)
    if chosen and chosen != "tensorflow":
        hint = f"unset KERAS_BACKEND, which names {chosen}, to train with TensorFlow, or install {chosen}"
    else:
        hint = f"{INSTALL_TRAINING}; check keras.json in Keras' folder if you have changed it"
    return Check("Keras", "error", f"does not start: {last_line}", hint)


def check_processor(name: str, num_threads: int, has_bfloat16: bool) -> Check:
    """Check how many threads can run at once, and report the precision that `auto` selects on this processor."""
    precision = "native bfloat16, so training uses bfloat16" if has_bfloat16 else "training uses float32"
    found = f"{name}, {num_threads} threads; {precision}"
    if num_threads > 1:
        return Check("processor", "ok", found)
    return Check("processor", "warning", found, "allow this process more processors, or expect slow training")


def check_memory(available: int | None) -> Check:
    """Check the available memory in bytes; None if it is unknown."""
    hint = f"training takes {MIN_MEMORY / GB:g} GB, presets larger than the default {RECOMMENDED_MEMORY / GB:g} GB"
    if available is None:
        return Check("memory", "warning", "unknown on this system", hint)
    found = f"{available / GB:.1f} GB available"
    return _check_amount("memory", available, MIN_MEMORY, RECOMMENDED_MEMORY, found, f"{hint}: close other programs")


def check_disk(folder: Path, free: int, is_writable: bool) -> Check:
    """Check the folder for runs and its free space in bytes."""
    if not is_writable:
        return Check("disk", "error", f"{folder} cannot be written", "change to a folder of your own")
    found = f"{free / GB:.1f} GB free in {folder}"
    hint = f"free {RECOMMENDED_DISK / GB:g} GB, or change to another disk"
    return _check_amount("disk", free, MIN_DISK, RECOMMENDED_DISK, found, hint)


def _check_amount(name: str, amount: int, minimum: float, recommended: float, found: str, hint: str) -> Check:
    if amount >= recommended:
        return Check(name, "ok", found)
    return Check(name, "warning" if amount >= minimum else "error", found, hint)


def check_data(folder: str | None, folder_problem: str | None, local: Problems, hosts: Problems) -> list[Check]:
    """Check the data set, in the folder that FMNIST_DATA names or else in the first usable source, then each source."""
    available = [name for name, problem in {**local, **hosts}.items() if problem is None]
    if folder and folder_problem:
        data = Check("data set", "error", folder_problem, "correct FMNIST_DATA, or unset it")
    elif folder:
        data = Check("data set", "ok", f"in {folder}, the value of FMNIST_DATA")
    elif not available:
        hint = f"connect to a network, or put the four .gz files into {download.keras_folder()}"
        data = Check("data set", "error", "not on this machine, and no host can be reached", hint)
    elif available[0] in local:
        data = Check("data set", "ok", f"Fashion-MNIST, every byte verified, in {available[0]}")
    else:
        data = Check("data set", "warning", "not on this machine yet", f"`fmnist data` downloads it: {available[0]}")
    checks = [data]
    for name, problem in {**local, **hosts}.items():
        if problem is None or data.status == "ok":
            checks.append(Check(name, "ok", f"not needed: {problem}" if problem else "available"))
        else:
            checks.append(Check(name, "warning", problem, "check the network, or use another source"))
    return checks


def check_browser() -> Check:
    """Check whether Python can open a browser to view a report. On Linux that needs a display or a text browser."""
    try:
        webbrowser.get()
    except webbrowser.Error:
        return Check("browser", "warning", "none", "open reports and figures, which are files, on another machine")
    return Check("browser", "ok", "available")


def _problem(action: Callable[[], object]) -> str | None:
    """Return the error that an action raises as one line, or None if it succeeds."""
    try:
        action()
    except Exception as error:
        return one_line(error)
    return None


def request_hosts() -> Problems:
    """Send a request to every host of the data in parallel."""
    problems: Problems = dict.fromkeys(HOSTS, f"no answer within {TIMEOUT} s")

    def request(name: str) -> None:
        problems[name] = _problem(HOSTS[name])

    # Daemon threads, because name resolution has no time-out and must not delay the end of the process.
    threads = [threading.Thread(target=request, args=[name], daemon=True) for name in HOSTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT + 1)
    return dict(problems)


def _request_from_keras() -> None:
    """Request the smallest file, as the download does."""
    with open_url(f"{download.KERAS_URL}/{list(download.FILES)[-1]}.gz", TIMEOUT):
        pass


def _debian_url() -> str:
    if not shutil.which("apt-get"):
        raise FmnistError("no apt-get on this machine")
    command = ["apt-get", "-qq", "--print-uris", "download", download.DEBIAN_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.startswith("'http"):
        raise FmnistError(f"{download.DEBIAN_PACKAGE} is not in the package lists; they would be downloaded first")
    return done.stdout.split("'")[1]


LOCAL_SOURCES: dict[str, Callable[[], object]] = {
    "Keras' cache": lambda: download.read_verified(download.keras_folder()),
    "Debian's folder": lambda: download.read_verified(download.DEBIAN_FOLDER),
}
HOSTS: dict[str, Callable[[], object]] = {
    "Keras' download": _request_from_keras,
    "Debian's package": lambda: check_host_of_apt(_debian_url(), TIMEOUT),
}
"""Name of each host's source, and a function that sends a request to the host."""


def start_keras() -> tuple[int, str]:
    """Import Keras in a new process, where a crash does no harm, and return its exit code and last line.

    As in `fmnist train`, the backend in Keras' own settings file does not count.
    """
    environment = {**os.environ, "KERAS_BACKEND": os.environ.get("KERAS_BACKEND") or "tensorflow"}
    command = [sys.executable, "-c", "import keras; print(f'{keras.backend.backend()} backend')"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, errors="replace", timeout=KERAS_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"not ready after {KERAS_TIMEOUT} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else "no output"
