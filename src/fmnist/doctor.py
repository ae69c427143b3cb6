"""Find out whether this machine can do the work, and what would mend it.

Each check is a function from facts to a line; `examine` collects the facts.
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

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fmnist.data import dataset as data
from fmnist.data import download as sources
from fmnist.errors import FmnistError, one_line
from fmnist.runs import environment
from fmnist.runs import run as runs

TIMEOUT_SECONDS = 3
"""For an answer of a host; longer is as good as none."""
KERAS_TIMEOUT_SECONDS = 120
GB = 10**9
LEAST_MEMORY, GOOD_MEMORY = 1.6 * GB, 3 * GB
"""Training `fast` takes 1.56 GB at the peak (docs/log.md)."""
LEAST_DISK, GOOD_DISK = 0.1 * GB, 1 * GB
"""The data takes 31 MB, a run some 5 MB."""
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Where Linux writes what a container may take, and what it has taken, in either of its versions."""

Answers = dict[str, str | None]
"""A source's name to why it does not help; None where it does."""


@dataclass(frozen=True)
class Line:
    """What was found in one place."""

    name: str
    status: Literal["ok", "warning", "error"]
    """`error` where training the default preset cannot work."""
    found: str
    mend: str | None = None
    """What to do about it; None where all is well."""


def examine() -> list[Line]:
    """Look at everything that a training run needs.

    Nothing is written but what Keras itself makes when it starts; the hosts of the data are asked once, for at most
    `TIMEOUT_SECONDS`.

    Returns:
        The lines, in the order in which they are best mended.
    """
    folder = runs.RUNS_FOLDER if runs.RUNS_FOLDER.is_dir() else Path.cwd()
    here = {name: _problem_of(look) for name, look in LOCAL_SOURCES.items()}
    named = os.environ.get("FMNIST_DATA")
    problem_of_named = _problem_of(lambda: data.load(named)) if named else None
    return [
        python(platform.python_version(), metadata.metadata("fmnist")["Requires-Python"]),
        packages(metadata.requires("fmnist") or [], installed_version),
        keras(*start_keras()),
        processor(environment.processor_name(), environment.has_native_bfloat16()),
        threads(environment.num_processors()),
        memory(available_memory()),
        disk(folder.absolute(), shutil.disk_usage(folder).free, os.access(folder, os.W_OK)),
        *data_set(named, problem_of_named, here, ask_hosts()),
        screen(has_display(), has_browser()),
    ]


def python(version: str, bounds: str) -> Line:
    """Hold the version of Python against the bounds of the package."""
    if SpecifierSet(bounds).contains(version, prereleases=True):
        return Line("Python", "ok", version)
    return Line("Python", "error", version, f"install Python {bounds} and make a new environment with it")


def packages(requirements: list[str], version_of: Callable[[str], str | None]) -> Line:
    """Hold every installed package against the bounds of this one's metadata."""
    needed = [Requirement(text) for text in requirements]
    needed = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    versions = {each.name: version_of(each.name) for each in needed}
    missing = [each.name for each in needed if versions[each.name] is None]
    outside = [
        f"{each.name} {versions[each.name]} (expected {each.specifier})"
        for each in needed
        if each.name not in missing and not each.specifier.contains(versions[each.name] or "", prereleases=True)
    ]
    if missing:
        return Line("packages", "error", f"missing: {', '.join(missing)}", "install fmnist again with pip")
    if outside:
        return Line("packages", "warning", ", ".join(outside), "install fmnist again with pip")
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if name in environment.PACKAGES)
    return Line("packages", "ok", f"all {len(needed)} within their bounds: {shown}")


def keras(exit_code: int, last_line: str) -> Line:
    """Judge how a fresh process that imports Keras has ended."""
    if exit_code == 0:
        return Line("Keras", "ok", f"starts: {last_line}")
    if exit_code < 0:
        mend = "the processor lacks what TensorFlow is built for, or memory ran out; try another machine"
        return Line("Keras", "error", f"stopped by signal {-exit_code} while it started", mend)
    mend = "install fmnist again with pip, and look at KERAS_BACKEND and keras.json if you have set them"
    return Line("Keras", "error", f"does not start: {last_line}", mend)


def processor(name: str, has_native_bfloat16: bool) -> Line:
    """Tell the processor, and the precision that `auto` takes on it."""
    if has_native_bfloat16:
        return Line("processor", "ok", f"{name}: multiplies bfloat16 natively, so training takes bfloat16")
    return Line("processor", "ok", f"{name}: no native bfloat16, so training takes float32")


def threads(count: int) -> Line:
    """Tell how many processors this process may use."""
    if count > 1:
        return Line("threads", "ok", f"{count} (the weights of a run depend on this number)")
    return Line("threads", "warning", "1", "give this process more processors, or more time")


def memory(available: float) -> Line:
    """Judge the memory, in bytes, that is to be had."""
    found = f"{available / GB:.1f} GB available"
    if available < LEAST_MEMORY:
        return Line("memory", "error", found, f"training takes {LEAST_MEMORY / GB:g} GB: close other programs")
    if available < GOOD_MEMORY:
        return Line("memory", "warning", found, "enough for the default preset alone: close other programs")
    return Line("memory", "ok", found)


def disk(folder: Path, free: float, may_write: bool) -> Line:
    """Judge the folder where runs go, and the bytes that are free there."""
    found = f"{free / GB:.1f} GB free in {folder}"
    if not may_write:
        return Line("disk", "error", f"{folder} may not be written", "change to a folder of your own")
    if free < LEAST_DISK:
        return Line("disk", "error", found, f"free {LEAST_DISK / 10**6:.0f} MB, or change to another disk")
    if free < GOOD_DISK:
        return Line("disk", "warning", found, "enough for a few runs: free some space")
    return Line("disk", "ok", found)


def data_set(named: str | None, problem_of_named: str | None, here: Answers, hosts: Answers) -> list[Line]:
    """Judge whether the data is on this machine or can be had.

    Args:
        named: the folder in FMNIST_DATA, if there is one.
        problem_of_named: why that one cannot be loaded; None if it can. Of no account without `named`.
        here: the sources on this machine.
        hosts: those that need a network.

    Returns:
        A line for the data set, then one for each source. What is not needed is no more than a warning.
    """
    found_in = [name for name, problem in here.items() if problem is None]
    reached = [name for name, problem in hosts.items() if problem is None]
    if named and problem_of_named:
        summary = Line("data set", "error", problem_of_named, "correct FMNIST_DATA, or unset it")
    elif named:
        summary = Line("data set", "ok", f"FMNIST_DATA names {named}, which holds one")
    elif found_in:
        summary = Line("data set", "ok", f"Fashion-MNIST, every byte verified, in {found_in[0]}")
    elif reached:
        summary = Line("data set", "warning", "not on this machine yet", f"`fmnist data` fetches it: {reached[0]}")
    else:
        mend = f"connect to a network, or put the four .gz files into {sources.keras_folder()}"
        summary = Line("data set", "error", "not on this machine, and no host that has it can be reached", mend)
    is_here = summary.status == "ok"
    lines = [summary]
    for name, problem in {**here, **hosts}.items():
        if problem is None:
            lines.append(Line(name, "ok", "has the data" if name in here else "can be reached"))
        elif name in here and is_here:
            lines.append(Line(name, "ok", f"not needed: {problem}"))
        else:
            mend = "nothing to do, the data is here" if is_here else "check the network, or use another source"
            lines.append(Line(name, "warning", problem, mend))
    return lines


def screen(has_display: bool, has_browser: bool) -> Line:
    """Tell whether a report or a notebook can be looked at from here."""
    if has_display and has_browser:
        return Line("screen", "ok", "a display and a browser")
    lacking = [f"no {name}" for name, is_there in (("display", has_display), ("browser", has_browser)) if not is_there]
    return Line("screen", "warning", ", ".join(lacking), "reports and figures are files: open them on another machine")


LOCAL_SOURCES: dict[str, Callable[[], object]] = {
    "Keras' cache": lambda: sources.read_verified(sources.keras_folder()),
    "Debian's folder": lambda: sources.read_verified(sources.DEBIAN_FOLDER),
}


def _problem_of(look: Callable[[], object]) -> str | None:
    try:
        look()
    except Exception as error:  # of whatever kind: that something fails is what is asked here
        return one_line(error)
    return None


def ask_hosts() -> Answers:
    """Ask the hosts of the data all at once whether they answer."""
    answers: Answers = dict.fromkeys(HOSTS, f"no answer within {TIMEOUT_SECONDS} s")

    def ask(name: str) -> None:
        answers[name] = _problem_of(HOSTS[name])

    # Threads that may be left behind: looking up a name can outlast every time-out that can be set for it.
    asking = [threading.Thread(target=ask, args=(name,), daemon=True) for name in HOSTS]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(TIMEOUT_SECONDS + 1)
    return dict(answers)


def _ask_keras() -> None:
    _head(f"{sources.KERAS_URL}/{next(iter(sources.FILES))}.gz")


def _ask_debian() -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise FmnistError("no apt-get on this machine")
    command = ["apt-get", "-qq", "--print-uris", "download", sources.DEBIAN_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.startswith("'http"):
        raise FmnistError(f"the package lists do not know {sources.DEBIAN_PACKAGE}; they would be fetched first")
    _head(done.stdout.split("'")[1])


def _head(url: str) -> None:
    import requests

    try:
        requests.head(url, timeout=TIMEOUT_SECONDS).raise_for_status()
    except requests.Timeout as error:
        raise FmnistError(f"no answer within {TIMEOUT_SECONDS} s") from error
    except requests.ConnectionError as error:
        raise FmnistError("no connection") from error
    except requests.RequestException as error:
        raise FmnistError(f"refused ({one_line(error)})") from error


HOSTS: dict[str, Callable[[], None]] = {"Keras' download": _ask_keras, "Debian's package": _ask_debian}


def installed_version(package: str) -> str | None:
    """Give the version of a package, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def start_keras() -> tuple[int, str]:
    """Import Keras in a fresh process, where a crash does no harm; give its exit code and last line."""
    script = "import keras; print(f'{keras.backend.backend()} backend')"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True, text=True, errors="replace", check=False, timeout=KERAS_TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 1, f"not ready after {KERAS_TIMEOUT_SECONDS} s"
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode, said[-1] if said else "without a word"


def available_memory() -> int:
    """Give the bytes that a new program could take, within the limit of a container."""
    read = [[path.read_text().strip() for path in paths] for paths in CGROUPS if all(path.is_file() for path in paths)]
    left = [max(0, int(limit) - int(taken)) for limit, taken in read if limit.isdigit()]
    return min([psutil.virtual_memory().available, *left])


def has_display() -> bool:
    """Say whether windows can be shown: on Linux, a server for them is named in the environment."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def has_browser() -> bool:
    """Say whether Python knows a browser to open."""
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
