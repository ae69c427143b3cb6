"""Run the runs of a study: each in a child process, on processors of its own.

`run_task` is what a `concurrent.futures.Executor` calls, in a thread of this process or of a worker on another machine.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from fmnist.errors import FolderInUseError
from fmnist.files import lock_folder
from fmnist.runs.environment import num_cpus, version_differences
from fmnist.studies.child import Task
from fmnist.studies.plan import PLAN_FILE

MAX_STARTS = 3
"""Of a run whose process is killed, by whom or what ever."""
POLL_SECONDS = 0.2
MAX_ERROR_LINE = 500

_children: set[subprocess.Popen[bytes]] = set()
_children_lock = threading.Lock()
_is_stopping = threading.Event()


def run_task(task: Mapping[str, Any], cores: int, versions: Mapping[str, str], backend: str) -> str | None:
    """Run a task of a study to its end.

    Args:
        task: a `Task` as plain values, without processors.
        cores: how many processors it gets.
        versions: of the packages that all runs of the study have.
        backend: of Keras.

    Returns:
        None if the run is finished, else why it is not, in one line. What cannot be trained is not tried again; a
        process that was killed is started again, and resumes.
    """
    if problem := check_worker(Path(task["folder"]), cores, versions):
        return problem
    for _ in range(MAX_STARTS):
        if _is_stopping.is_set():
            return "the study was interrupted"
        with claim_cpus(cores) as cpus:
            code, result, errors = _run_child(replace(Task(**task), cpus=cpus), backend)
        if code >= 0:
            break
    if result is not None:
        return result.get("error")
    if code < 0:
        return f"its process was ended {MAX_STARTS} times, the last time by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}: {(errors.splitlines() or ['no output'])[-1][:MAX_ERROR_LINE]}"


def check_worker(folder: Path, cores: int, versions: Mapping[str, str]) -> str | None:
    """Return why this machine cannot do a run of a study; None if it can."""
    study = folder.parent.parent
    here = f"{os.uname().nodename}: " if hasattr(os, "uname") else ""
    if not (study / PLAN_FILE).is_file():
        return f"{here}no {PLAN_FILE} in {study}; expected a folder that all machines of the study share"
    if different := version_differences(versions):
        return f"{here}found {', '.join(different)}; install what the study has, or start a new study"
    if num_cpus() < cores:
        return f"{here}{num_cpus()} processors; the study has {cores} for each run"
    return None


@contextmanager
def claim_cpus(cores: int) -> Iterator[tuple[int, ...]]:
    """Wait for processors that no other run of this user has, on this machine, and keep them until the block ends.

    Args:
        cores: how many, at most those of this process.

    Yields:
        Their numbers. Nothing where processes cannot be bound to processors.
    """
    if not hasattr(os, "sched_getaffinity"):
        yield ()
        return
    folder = Path(tempfile.gettempdir()) / f"fmnist-processors-{os.getuid()}"
    while True:
        with ExitStack() as locks:
            claimed: list[int] = []
            for cpu in sorted(os.sched_getaffinity(0)):
                place = folder / str(cpu)
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
                try:
                    locks.enter_context(lock_folder(place))
                except FolderInUseError:
                    continue
                claimed.append(cpu)
                if len(claimed) == cores:
                    yield tuple(claimed)
                    return
        time.sleep(POLL_SECONDS)


def _run_child(task: Task, backend: str) -> tuple[int, dict[str, Any] | None, str]:
    """Run a child process to its end. Returns its exit code, its result if it gave one, and its stderr."""
    command = [sys.executable, "-m", "fmnist.studies.child"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    # stderr is a file, because nobody reads it meanwhile. stdin stays open: the child ends when it is closed.
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as child,
    ):
        with _children_lock:
            _children.add(child)
        assert child.stdin
        assert child.stdout
        with suppress(BrokenPipeError):  # it has ended already
            child.stdin.write(json.dumps(task.to_json()).encode() + b"\n")
            child.stdin.flush()
        lines = child.stdout.read().decode(errors="replace").splitlines()
        code = child.wait()
        with _children_lock:
            _children.discard(child)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    return code, json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None, text


def stop_children() -> None:
    """Kill the child processes of this process, and start no others. Their runs can be resumed."""
    _is_stopping.set()
    with _children_lock:
        for child in _children:
            child.kill()


def task_for(folder: Path, config: Any, data_sha256: Mapping[str, str], test: bool) -> dict[str, Any]:
    """Return a `Task` as plain values, which other processes and machines can read."""
    task = Task(folder=str(folder.absolute()), config=config, cpus=(), data_sha256=dict(data_sha256), test=test)
    return task.to_json()
