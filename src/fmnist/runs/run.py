"""The run folder: what is in it, and how it is written and read back.

`config.json`, `environment.json`, `history.csv`, `curves.png`, `weights.safetensors`, `model.onnx`, `manifest.json`,
`evaluation.json`, `report.html`, and `model-int8.onnx` if it was asked for; checkpoints until it is trained. A run is
finished when its manifest is there.
"""

import csv
import io
import itertools
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fmnist import atomic, untrusted
from fmnist.config import Config
from fmnist.data import dataset as data
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.runs import environment
from fmnist.runs import schemas as forms

log = logging.getLogger("fmnist")

FORMAT_VERSION = 1
"""Of the run folder and its manifest; it goes up when an older program could no longer read them rightly."""

RUNS_FOLDER = Path("runs")
PACKAGED_FOLDER = Path(__file__).parents[1] / "pretrained"
"""The run that comes with the package, of which only the int8 graph is kept; `make pretrained` makes another."""
INT8_FILE = "model-int8.onnx"
"""The complete graph again, quantised; a run has it only if somebody asked for it."""
HISTORY_COLUMNS = (
    "epoch", "loss", "accuracy", "precision", "recall",
    "val_loss", "val_accuracy", "val_precision", "val_recall", "learning_rate", "seconds",
)  # fmt: skip

MEND = "train again into a new folder"
CUT_OFF = "the run was cut off or its folder changed, so train again into a new one"

History = list[dict[str, float | None]]
"""One row an epoch, with the keys of `HISTORY_COLUMNS`; None where there is no validation part."""


@dataclass(frozen=True)
class Run:
    """A folder that a training run has written, or is writing."""

    folder: Path
    config: Config
    created: datetime

    @property
    def name(self) -> str:
        """The name of the folder, wherever it was opened from."""
        return self.folder.resolve().name

    @property
    def weights_path(self) -> Path:
        """Where the weights of the last finished epoch are."""
        return self.folder / "weights.safetensors"

    @property
    def onnx_path(self) -> Path:
        """Where the complete graph is, weights inside."""
        return self.folder / "model.onnx"

    @property
    def is_finished(self) -> bool:
        """Whether the run has been trained and exported."""
        return (self.folder / "manifest.json").is_file()

    @property
    def is_trained(self) -> bool:
        """Whether all its epochs are over."""
        return self.weights_path.exists() and len(self.history()) == self.config.epochs

    @property
    def is_complete(self) -> bool:
        """Whether it is finished, with all its epochs, and has the very files that its manifest names.

        A cut-off run that was exported all the same lacks epochs; one whose second export was cut off has other files.
        """
        try:
            manifest = self.manifest()
            return manifest["epochs_trained"] == self.config.epochs and all(
                manifest["sha256"].get(path.name) == idx.sha256(untrusted.read(path, untrusted.MAX_MODEL_BYTES, MEND))
                for path in (self.weights_path, self.onnx_path)
            )
        except FmnistError:
            return False

    def environment(self) -> dict[str, Any]:
        """Read what the run was trained on: versions, processor, threads, precision, data.

        Raises:
            FmnistError: if the file is missing or damaged.
        """
        path = self.folder / "environment.json"
        return forms.check(path, untrusted.read_json(path, CUT_OFF), forms.ENVIRONMENT, MEND)

    def load_data(self) -> data.Dataset:
        """Load the data that the run was trained on.

        Raises:
            FmnistError: if it is not at hand, or what is found has other hashes.

        A stranger's run can name any folder here. Nothing comes of it: of that folder only files with the names of
        a data set are read, and they are used only if their hashes are those that the run has on record.
        """
        dataset = data.load_from(self.config.data)
        refuse_other_data(self, dataset, self.environment()["data_sha256"])
        return dataset

    def history(self) -> History:
        """Read the rows of the finished epochs, oldest first.

        Raises:
            FmnistError: if the file is there and is no such table.
        """
        path = self.folder / "history.csv"
        if not os.path.lexists(path):
            return []
        try:
            text = untrusted.read(path, untrusted.MAX_DOCUMENT_BYTES, MEND).decode()
            columns, *rows = csv.reader(io.StringIO(text, newline=""))
            if tuple(columns) != HISTORY_COLUMNS:
                raise ValueError("it has other columns")
            return [
                {name: float(cell) if cell else None for name, cell in zip(HISTORY_COLUMNS, row, strict=True)}
                for row in rows
            ]
        except (csv.Error, ValueError) as error:
            raise FmnistError(f"{path} is damaged ({error}); train again into a new folder") from error

    def manifest(self) -> dict[str, Any]:
        """Read the manifest of a finished run.

        Raises:
            FmnistError: if the run is not finished, or another version of fmnist wrote it.
        """
        if not self.is_finished:
            mend = (
                f"`fmnist export {self.folder}` makes a model of the epochs that it has, "
                if self.weights_path.exists()
                else "it stopped before its first epoch was over; "
            ) + f"`fmnist train --resume {self.folder}` goes on"
            raise FmnistError(f"run {self.folder} is not finished; {mend}")
        return read_manifest(self.folder)

    def read_onnx(self, file: str = "model.onnx") -> bytes:
        """Read a graph of a finished run.

        Args:
            file: `model.onnx`, or `model-int8.onnx` where that has been exported too.

        Raises:
            FmnistError: if the run is not finished, or the file is missing or not the one that the manifest names.
        """
        path, expected = self.folder / file, self.manifest()["sha256"].get(file)
        mend = f"`fmnist export {self.folder}{' --int8' if file == INT8_FILE else ''}` writes it"
        if expected is None:
            raise FmnistError(f"the manifest of {self.folder} names no {file}; {mend}")
        content = untrusted.read(path, untrusted.MAX_MODEL_BYTES, f"{mend} again")
        if idx.sha256(content) != expected:
            raise FmnistError(f"{path} is not the file that its manifest names (SHA-256 differs); {mend} again")
        return content


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest in a folder.

    Raises:
        FmnistError: if it is missing, damaged, or of another format version.
    """
    path = folder / "manifest.json"
    mend = f"remove it, and `fmnist export {folder}` writes it anew"
    manifest = untrusted.read_json(path, mend)
    check_version(path, manifest)
    return forms.check(path, manifest, forms.MANIFEST, mend)


def create(config: Config, folder: Path | None = None) -> Run:
    """Begin a run: make its folder and write its `config.json`.

    Args:
        config: what will be run.
        folder: where, new or empty; None takes `new_folder`.

    Returns:
        The new run.

    Raises:
        FmnistError: if the folder holds something already.
    """
    folder = folder or new_folder(config.preset)
    folder.mkdir(parents=True, exist_ok=True)
    if not all(atomic.is_leftover(path) for path in folder.iterdir()):
        raise FmnistError(
            f"{folder} is not empty; expected a new folder for the run, so choose another name. "
            f"`fmnist train --resume {folder}` goes on with a run that was cut off"
        )
    atomic.remove_leftovers(folder)
    created = datetime.now(UTC)
    document = {"format_version": FORMAT_VERSION, "created": created.isoformat(), "config": config.to_json()}
    atomic.write_json(folder / "config.json", document)
    return Run(folder, config, created)


def unfinish(run: Run) -> None:
    """Clear away what a run that goes on will write anew: manifest, evaluation, and what killed processes left."""
    for name in ("manifest.json", "evaluation.json", "report.html"):
        (run.folder / name).unlink(missing_ok=True)
    atomic.remove_leftovers(run.folder)


def new_folder(preset: str) -> Path:
    """Give a folder under `runs/` that does not exist yet, named by preset and time."""
    name = f"{preset}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(folder for suffix in suffixes if not (folder := RUNS_FOLDER / (name + suffix)).exists())


def open_run(folder: str | Path) -> Run:
    """Open the folder of a run, finished or not.

    Raises:
        FmnistError: if it is missing, empty, half-written or of another format version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FmnistError(f"no run folder {folder}; `fmnist train` makes one")
    if not any(folder.iterdir()):
        raise FmnistError(f"{folder} is empty; expected the folder of a run, which `fmnist train` makes")
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise FmnistError(
            f"{folder} is not the folder of a run: it has no config.json; `fmnist train` makes one, in a new folder"
        )
    document = untrusted.read_json(path, CUT_OFF)
    check_version(path, document)
    try:
        created = datetime.fromisoformat(document["created"]).astimezone(UTC)
        return Run(folder, Config.from_json(document["config"]), created)
    except (KeyError, OverflowError, TypeError, ValueError, FmnistError) as error:
        raise FmnistError(f"{path} is damaged ({error}); {MEND}") from error


def newest_finished(runs_folder: Path | None = None) -> Run:
    """Give the finished run that was begun last.

    Raises:
        FmnistError: if there is none.
    """
    runs_folder = runs_folder or RUNS_FOLDER
    finished = sorted(finished_runs(runs_folder), key=lambda run: run.created)
    if not finished:
        raise FmnistError(f"no finished run in {runs_folder.absolute()}; `fmnist train` makes one")
    return finished[-1]


def packaged() -> Run:
    """Open the run that comes with the package; it has no `model.onnx`, only `INT8_FILE`."""
    return open_run(PACKAGED_FOLDER)


def finished_runs(runs_folder: Path) -> list[Run]:
    """Give the finished runs in a folder; what cannot be read as one is passed over."""
    found = []
    for path in runs_folder.glob("*/manifest.json"):
        try:
            found.append(open_run(path.parent))
        except FmnistError:
            continue
    return found


def history_row(epoch: int, values: dict[str, float]) -> dict[str, float | None]:
    """Make a row of the history from what Keras logs.

    Args:
        epoch: counted from 0, as Keras does; the row counts from 1.
        values: by column; what is missing becomes None, what is no column is dropped.
    """
    return {name: {"epoch": epoch + 1, **values}.get(name) for name in HISTORY_COLUMNS}


def write_history(run: Run, history: History) -> None:
    """Put the rows so far into `history.csv`, in one step."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    atomic.write(run.folder / "history.csv", text.getvalue().encode())


def record_environment(run: Run, dataset: data.Dataset, backend: str, precision: str) -> None:
    """Record what the weights depend on besides the configuration; if it was recorded before, say what has changed.

    Where something has changed, what was recorded is kept in the same file, under `before`.

    Raises:
        FmnistError: if the run was begun on other data.
    """
    now = {**environment.describe(), "backend": backend, "precision": precision, "data_sha256": dataset.sha256}
    path = run.folder / "environment.json"
    if path.exists():
        try:
            before = run.environment()
        except FmnistError as error:
            log.warning("%s; it is written anew", error)
        else:
            refuse_other_data(run, dataset, before["data_sha256"])
            changes = environment.differences(before, now)
            if not changes:
                return
            log.warning("training goes on, but the result may differ from that of one go: %s", "; ".join(changes))
            now["before"] = before
    atomic.write_json(path, now)


def refuse_other_data(run: Run, dataset: data.Dataset, expected: dict[str, str]) -> None:
    """Refuse data whose hashes are not those that a run has on record.

    Raises:
        FmnistError: naming both.
    """
    if dataset.sha256 != expected:
        raise FmnistError(
            f"the data from {dataset.source} is not the data that {run.folder} was trained on (its SHA-256 "
            "differs); put that back, or train again"
        )


def check_version(path: Path, document: dict[str, Any]) -> None:
    """Refuse what another version of fmnist wrote."""
    found = document.get("format_version")
    if type(found) is not int or found != FORMAT_VERSION:
        raise FmnistError(
            f"{path} has format version {str(found)[:40]}; this fmnist reads version {FORMAT_VERSION}. "
            "Use the fmnist that wrote it, or train again"
        )
