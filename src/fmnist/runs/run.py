"""The run folder: its files, and how they are written and read.

`config.json`, `environment.json`, `history.csv`, `curves.png`, `weights.safetensors`, `model.onnx`, `manifest.json`,
`evaluation.json`, `report.html`; `model-int8.onnx`, `model-plain.onnx` and `model.keras` on request; checkpoints until
training has ended. A run has a model as soon as its manifest is there.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from fmnist.config import Config
from fmnist.data.dataset import Dataset, Split, split_dataset
from fmnist.documents import read_document, write_document
from fmnist.errors import FmnistError, quote
from fmnist.files import MAX_MODEL_BYTES, as_path, is_temporary_file, read_bounded, remove_temporary_files, sha256
from fmnist.runs.data import find_data
from fmnist.runs.environment import environment_changes
from fmnist.runs.history import History, read_history
from fmnist.runs.schemas import (
    EXPORTS,
    GRAPH_FILE,
    INT8_FILE,
    WEIGHTS_FILE,
    CustomPart,
    Environment,
    Manifest,
    RunDescription,
)

log = logging.getLogger("fmnist")

PRETRAINED_FOLDER = Path(__file__).parents[1] / "pretrained"
"""The run that comes with the package. Only its int8 graph is kept."""

TRAIN_AGAIN = "train again into a new folder"
INCOMPLETE = f"the run was interrupted or its folder was changed, so {TRAIN_AGAIN}"

Status = Literal["training", "trained", "finished"]


@dataclass(frozen=True)
class Run:
    """A run folder that a training has written, or is writing."""

    folder: Path
    config: Config
    created: datetime
    custom: tuple[CustomPart, ...] = ()
    """What is the user's own. `resume` and `load_model` need it again."""

    @property
    def name(self) -> str:
        """Name of the folder, without its path."""
        return self.folder.resolve().name

    @property
    def is_pretrained(self) -> bool:
        """Whether this is the run that comes with the package."""
        return self.folder.resolve() == PRETRAINED_FOLDER.resolve()

    @property
    def weights_path(self) -> Path:
        """Path of the weights after the last completed epoch."""
        return self.folder / WEIGHTS_FILE

    @property
    def onnx_path(self) -> Path:
        """Path of the complete graph, with the weights inside."""
        return self.folder / GRAPH_FILE

    @property
    def history_path(self) -> Path:
        """Path of the history."""
        return self.folder / "history.csv"

    @property
    def manifest_path(self) -> Path:
        """Path of the manifest, which is written last."""
        return self.folder / "manifest.json"

    @property
    def status(self) -> Status:
        """Return how far the run is.

        `finished`: the manifest is there, for all planned epochs, and weights and graph are the files that it names.
        `trained`: all epochs are done, but the export is missing or not intact. `training`: epochs are missing, or
        checkpoints are left; such a run can have a manifest too, if it was exported as it was.

        Raises:
            FmnistError: if the history is needed and damaged.
        """
        if self._is_export_intact():
            return "finished"
        # With a checkpoint, a damaged history is no problem: it is written again.
        if self.checkpoint_paths() or not self.weights_path.exists():
            return "training"
        return "trained" if len(self.history()) == self.config.epochs else "training"

    def checkpoint_paths(self) -> list[Path]:
        """Return the paths of the checkpoints, oldest first."""
        return sorted(self.folder.glob("checkpoint-*.safetensors"))

    def _is_export_intact(self) -> bool:
        try:
            manifest = self.manifest()
            return manifest.epochs_trained == self.config.epochs and all(
                manifest.sha256[path.name] == sha256(read_bounded(path, MAX_MODEL_BYTES, TRAIN_AGAIN))
                for path in (self.weights_path, self.onnx_path)
            )
        except FmnistError:
            return False

    def environment(self) -> Environment:
        """Read the environment that the run was trained in.

        Raises:
            FmnistError: if the file is missing or damaged.
        """
        return read_document(self.folder / "environment.json", Environment, INCOMPLETE)

    def load_data(self, path: str | Path | None = None) -> Dataset:
        """Load the data that the run was trained on, wherever it is now.

        A run folder from another person can name any data folder. Data with other hashes than recorded is not used.

        Args:
            path: where the data is. None looks for it as `find_data` does.

        Raises:
            FmnistError: if the data is not found, or has other hashes.
        """
        return find_data(self, path)

    def check_data(self, dataset: Dataset, expected_sha256: Mapping[str, str]) -> None:
        """Raise an `FmnistError` unless a data set has the hashes that this run has recorded."""
        if dataset.sha256 != expected_sha256:
            raise FmnistError(
                f"the data from {dataset.source} is not the data that {self.folder} was trained on (its SHA-256 "
                "differs); restore that data, or name a folder that has it with --data"
            )

    def split(self, dataset: Dataset | None = None) -> Split:
        """Split the run's training images into training and validation, as the run itself does.

        Args:
            dataset: the run's data, if it is loaded already.
        """
        return split_dataset(dataset or self.load_data(), self.config.seed, self.config.full)

    def history(self) -> History:
        """Read the rows of the completed epochs, oldest first. Returns no rows if there is no file.

        Raises:
            FmnistError: if the file is damaged.
        """
        return read_history(self.history_path, TRAIN_AGAIN)

    def manifest(self) -> Manifest:
        """Read the manifest.

        Raises:
            FmnistError: if there is none yet, or it is damaged or of another format version.
        """
        if not self.manifest_path.is_file():
            has_weights = self.weights_path.exists()
            folder = quote(self.folder)
            hint = f"`fmnist export {folder}` exports the epochs that it has, " if has_weights else ""
            raise FmnistError(
                f"run {self.folder} is not finished; {hint}`fmnist train --resume {folder}` resumes training"
            )
        hint = f"remove it, and `fmnist export {quote(self.folder)}` writes a new one"
        return read_document(self.manifest_path, Manifest, hint)

    def read_graph(self, file: str = GRAPH_FILE, manifest: Manifest | None = None) -> bytes:
        """Read an exported graph.

        Args:
            file: `model.onnx`, or `model-int8.onnx` if that was exported too.
            manifest: the run's manifest, if it is read already.

        Raises:
            FmnistError: if the file is missing or not the one that the manifest names.
        """
        expected = (manifest or self.manifest()).sha256.get(file)
        hint = f"`fmnist export {quote(self.folder)}{' --int8' if file == INT8_FILE else ''}` writes it"
        if expected is None:
            raise FmnistError(f"the manifest of {self.folder} names no {file}; {hint}")
        content = read_bounded(self.folder / file, MAX_MODEL_BYTES, f"{hint} again")
        if sha256(content) != expected:
            raise FmnistError(
                f"{self.folder / file} is not the file that its manifest names (SHA-256 differs); {hint} again"
            )
        return content


def create_run(config: Config, folder: Path, custom: tuple[CustomPart, ...] = ()) -> Run:
    """Start a run: create its folder and write `config.json`.

    Args:
        config: what will be trained.
        folder: a new or empty folder.
        custom: what is the user's own.

    Raises:
        FmnistError: if the folder is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not all(is_temporary_file(path) for path in folder.iterdir()):
        raise FmnistError(
            f"{folder} is not empty; expected a new folder for the run, so choose another name. "
            f"`fmnist train --resume {quote(folder)}` resumes an interrupted run"
        )
    remove_temporary_files(folder)
    created = datetime.now(UTC)
    write_document(folder / "config.json", RunDescription(created=created, config=config, custom=custom))
    return Run(folder, config, created, custom)


def remove_without_epochs(run: Run, *, keep_folder: bool) -> None:
    """Remove a new run that has failed before the end of its first epoch. What others have written is kept."""
    if run.checkpoint_paths() or run.weights_path.exists():
        return
    for name in ("config.json", "environment.json"):
        (run.folder / name).unlink(missing_ok=True)
    if not keep_folder:
        with suppress(OSError):  # it is not empty
            run.folder.rmdir()


def remove_exports(run: Run) -> None:
    """Remove what belongs to an earlier graph: manifest, other exports, evaluation and report; and temporary files."""
    for name in ("manifest.json", *EXPORTS, "evaluation.json", "predictions.csv", "report.html"):
        (run.folder / name).unlink(missing_ok=True)
    remove_temporary_files(run.folder)


def open_run(folder: str | Path) -> Run:
    """Open a run folder, whatever the run's status.

    Raises:
        FmnistError: if the folder is missing, empty, no run, damaged or of another format version.
        OSError: if it cannot be opened.
    """
    folder = as_path(folder, "the run")
    if not folder.is_dir():
        raise FmnistError(f"no run folder {folder}; `fmnist train` creates one")
    if not any(folder.iterdir()):
        raise FmnistError(f"{folder} is empty; expected a run folder, which `fmnist train` creates")
    path = folder / "config.json"
    try:
        path.lstat()
    except FileNotFoundError:
        raise FmnistError(
            f"{folder} is not a run folder: it has no config.json; `fmnist train` creates a new one"
        ) from None
    description = read_document(path, RunDescription, INCOMPLETE)
    try:
        return Run(folder, description.config, description.created.astimezone(UTC), description.custom)
    except OverflowError as error:
        raise FmnistError(f"{path} is damaged ({error}); {TRAIN_AGAIN}") from error


def open_pretrained() -> Run:
    """Open the run that comes with the package. It has no weights and no `model.onnx`, only `INT8_FILE`."""
    return open_run(PRETRAINED_FOLDER)


def record_environment(run: Run, dataset: Dataset, now: Environment) -> None:
    """Write `environment.json`. In a resumed run, check the data and warn about what has changed.

    Raises:
        FmnistError: if the run was started on other data or photos.
    """
    path = run.folder / "environment.json"
    if path.exists():
        try:
            before = run.environment()
        except FmnistError:
            log.warning("%s is damaged; it is written again", path)
        else:
            run.check_data(dataset, before.data_sha256)
            if now.photos_sha256 != before.photos_sha256:
                place = run.config.photos or "the file of the repository"
                raise FmnistError(f"the photos are not those that {run.folder} was trained on; restore {place}")
            changes = environment_changes(before, now)
            if not changes:
                return
            log.warning("training resumes, but the result can differ from an uninterrupted run: %s", "; ".join(changes))
            now = replace(now, previous=before)
    write_document(path, now)
