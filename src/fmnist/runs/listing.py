"""The runs in a folder, described by their documents alone."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fmnist.data.download import FILES
from fmnist.documents import read_document
from fmnist.errors import FmnistError, one_line, quote
from fmnist.runs.folders import RUNS_FOLDER
from fmnist.runs.run import Run, open_run
from fmnist.runs.schemas import WEIGHTS_FILE, Scores

RUN_FILES = ("config.json", "environment.json", "history.csv", WEIGHTS_FILE, "manifest.json")
"""A folder with any of them is taken for a run, which may be damaged."""


def find_run_folders(folder: Path) -> list[Path]:
    """Return the run folders in a folder, or the folder itself if it is a run.

    A subfolder that is no run can have runs too, also in its folder `runs`, where a study keeps them. Hidden folders
    are skipped. A subfolder that cannot be opened is returned too: it may be a run.

    Raises:
        FmnistError: if there is no such folder.
        OSError: if it cannot be listed.
    """
    if not folder.is_dir():
        raise FmnistError(f"no folder {folder}; expected a folder of runs. `fmnist train` writes runs into `runs`")
    if _has_run_files(folder):
        return [folder]
    found: list[Path] = []
    for path in _subfolders(folder):
        try:
            found += [path] if _has_run_files(path) else _runs_of_study(path)
        except OSError:
            found.append(path)
    return found


def _runs_of_study(folder: Path) -> list[Path]:
    subfolders = _subfolders(folder)
    if folder / RUNS_FOLDER in subfolders:
        subfolders += _subfolders(folder / RUNS_FOLDER)
    return [path for path in subfolders if _has_run_files(path)]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if os.path.isdir(path) and not path.name.startswith("."))


def _has_run_files(folder: Path) -> bool:
    for name in RUN_FILES:
        try:
            (folder / name).lstat()
        except FileNotFoundError:
            continue
        except OSError:  # it may not be entered; whoever describes it finds out why
            return True
        return True
    return False


def describe_run(folder: Path) -> dict[str, Any]:
    """Describe a run by its documents. Nothing is loaded or computed but the hashes of its model.

    Args:
        folder: as `find_run_folders` returns it.

    Returns:
        `run` (the folder), `preset`, `data` (`Fashion-MNIST`, the recorded path, or `in memory`), `seed`, `status`
        (`finished`, `trained` or `training`, as `Run.status`, or `damaged`), `val_accuracy` (of the exported graph, or,
        before it is exported, of the last epoch), `test_accuracy`, `train_seconds` (of all epochs so far), `bytes` (of
        all files), and `error`. What the run does not have, or what cannot be read, is None. `error` is a line about
        the first problem of a damaged run, None for others.
    """
    row: dict[str, Any] = {"run": str(folder), **dict.fromkeys(READERS), "bytes": _num_bytes(folder), "error": None}
    try:
        run = open_run(folder)
    except (FmnistError, OSError) as error:
        return {**row, "status": "damaged", "error": one_line(error)}
    errors = []
    for name, read in READERS.items():
        try:
            row[name] = read(run)
        except (FmnistError, OSError) as error:
            errors.append(one_line(error))
    return {**row, "status": "damaged", "error": errors[0]} if errors else row


def _data(run: Run) -> str | None:
    if not os.path.lexists(run.folder / "environment.json") and not os.path.lexists(run.manifest_path):
        return run.config.data  # the training has not recorded its data yet
    return "Fashion-MNIST" if run.environment().data_sha256 == FILES else run.config.data or "in memory"


def _val_accuracy(run: Run) -> float | None:
    history = run.history()  # of a finished run too: a damaged one keeps it from being evaluated
    if os.path.lexists(run.manifest_path):
        validation = run.manifest().validation
        return validation.accuracy if validation else None
    return history[-1]["val_accuracy"] if history else None


def test_accuracy(run: Run) -> float | None:
    """Return the accuracy on the test images. None if the run is not evaluated.

    Raises:
        FmnistError: if `evaluation.json` is damaged.
    """
    path = run.folder / "evaluation.json"
    if not os.path.lexists(path):
        return None
    return read_document(path, Scores, f"`fmnist evaluate {quote(run.folder)}` writes it again").accuracy


def _train_seconds(run: Run) -> float | None:
    if os.path.lexists(run.manifest_path):
        return run.manifest().train_seconds
    seconds = [row["seconds"] or 0.0 for row in run.history()]
    return sum(seconds) if seconds else None


def _num_bytes(folder: Path) -> int:
    """Return the size of all files in a folder, without following links. What cannot be read counts nothing."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it was removed meanwhile
                total += os.lstat(os.path.join(path, name)).st_size
    return total


READERS: dict[str, Callable[[Run], Any]] = {
    "preset": lambda run: run.config.preset,
    "data": _data,
    "seed": lambda run: run.config.seed,
    "status": lambda run: run.status,
    "val_accuracy": _val_accuracy,
    "test_accuracy": test_accuracy,
    "train_seconds": _train_seconds,
}
"""From a run to each part of its description."""
