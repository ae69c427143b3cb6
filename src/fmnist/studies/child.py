"""A run of a study, in a process of its own: python -m fmnist.studies.child, with a `Task` as a line on stdin.

The process ends when its stdin is closed, which the system does when the process that started it ends in any way. So no
run survives its worker. The last line on stdout is `{}` or `{"error": ...}`.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from msgspec import convert
from msgspec.structs import replace

from fmnist.config import Config
from fmnist.documents import Document
from fmnist.errors import FmnistError, FolderInUseError, one_line
from fmnist.files import lock_folder
from fmnist.runs.data import OTHER_COMPUTER

MAX_LOCK_SECONDS = 300
"""A file server can keep the lock of a computer that was lost for some minutes."""
PARENT_ENDED = 3
"""Exit code."""


class Task(Document, frozen=True, kw_only=True):
    """What a child process does."""

    folder: str
    config: Config
    cpus: tuple[int, ...]
    """Processors to run on; empty where processes cannot be bound to processors."""
    data_sha256: dict[str, str]
    test: bool
    """Whether to score the finished run on the test images, unless it is scored already."""


def execute(task: Task) -> None:
    """Train, resume or only score a run, depending on what is in its folder.

    Raises:
        FmnistError: if the run cannot be trained.
    """
    import fmnist
    from fmnist.quiet import importing_keras

    with importing_keras():
        from fmnist.training import train as training
    for path in (task.config.data, task.config.photos):
        if path and OTHER_COMPUTER.match(path):  # the plan can be another person's
            raise FmnistError(f"{path} is on another computer; copy it to this one, and start a new study")
    folder = Path(task.folder)
    dataset = fmnist.load(task.config.data)
    if dataset.sha256 != task.data_sha256:
        raise FmnistError(f"the data from {dataset.source} is not that of the study (its SHA-256 differs); restore it")
    config = replace(task.config.resolve(dataset.is_fashion_mnist), data=None)
    if (folder / "config.json").exists():
        wait_for_lock(folder)
        run = fmnist.open_run(folder)
        if replace(run.config, data=None) != config:
            raise FmnistError(f"{folder} is a run with other settings than planned; move it away")
        run = training.resume(run, dataset=dataset, verbose=False)
    else:
        run = training.train(task.config, dataset=dataset, folder=folder, verbose=False)
    if task.test and not (folder / "evaluation.json").is_file():
        from fmnist.evaluation.evaluate import evaluate_and_save

        _, problem = evaluate_and_save(run, seed=0, dataset=dataset)
        if problem:
            raise FmnistError(f"the evaluation is not saved: {problem}")


def wait_for_lock(folder: Path) -> None:
    """Wait until no other process uses a run folder.

    Raises:
        FmnistError: if one still does after `MAX_LOCK_SECONDS`.
    """
    end = time.monotonic() + MAX_LOCK_SECONDS
    while True:
        try:
            with lock_folder(folder):
                return
        except FolderInUseError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def end_with_parent() -> None:
    """End the process as soon as stdin is closed."""
    sys.stdin.buffer.read()
    os._exit(PARENT_ENDED)


def main() -> None:
    """Execute the task on stdin."""
    task = convert(json.loads(sys.stdin.buffer.readline()), Task)
    threading.Thread(target=end_with_parent, daemon=True).start()
    if task.cpus:
        os.sched_setaffinity(0, task.cpus)
    try:
        execute(task)
        result = {}
    except (FmnistError, OSError, MemoryError) as error:
        result = {"error": one_line(error)}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the thread that reads stdin would wait for its end


if __name__ == "__main__":
    main()
