"""Checkpoints: one file per epoch. With configuration and data it determines the rest of the run."""

import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fmnist import curves, plots
from fmnist.config import MAX_EPOCHS, Config
from fmnist.documents import FORMAT_VERSION, Document, parse_document
from fmnist.errors import FmnistError, one_line
from fmnist.files import MAX_MODEL_BYTES, read_bounded, sha256, write_atomic
from fmnist.models.devices import is_on_gpu
from fmnist.models.weights import get_optimizer_state, get_weights, set_optimizer_state, set_weights
from fmnist.runs.history import HISTORY_COLUMNS, History, history_row, write_history
from fmnist.runs.run import Run
from fmnist.runs.schemas import Sha256
from fmnist.training.epochs import EpochSampler

log = logging.getLogger("fmnist")

NUM_KEPT = 2
"""The newest checkpoint, and the one before in case that is damaged."""
GPU_CHECKPOINT_INTERVAL = 1.0
"""Seconds between two checkpoints on a GPU, which can have ten epochs in a second."""
CURVES_INTERVAL = 10.0
"""Seconds between two drawings of the curves. Each takes as long as three steps of training on a CPU."""
NO_HASH = "0" * 64
"""Placeholder for the hash in the file, while the hash is computed."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run between two epochs."""

    weights: dict[str, np.ndarray]
    """As `get_weights` returns them."""
    optimizer: dict[str, np.ndarray]
    """As `get_optimizer_state` returns it."""
    losses: np.ndarray
    """(n,) float32, the loss of each training image when it was last trained on."""
    history: History
    """A row for each completed epoch."""


class CheckpointHeader(Document, frozen=True, kw_only=True):
    """The metadata of a checkpoint file."""

    format_version: int = FORMAT_VERSION
    config_sha256: Sha256
    history: Annotated[list[dict[str, int | float | None]], Meta(min_length=1, max_length=MAX_EPOCHS)]
    """Integers stay integers, so that `history.csv` is the same after a resume."""


class DamagedCheckpointError(FmnistError):
    """A checkpoint file is not bit for bit what was written."""


def write_checkpoint(run: Run, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically, and remove all others but the one before.

    Raises:
        OSError: if it cannot be written. Earlier checkpoints are intact.
    """
    path = run.folder / f"checkpoint-{len(checkpoint.history):04d}.safetensors"
    write_atomic(path, to_bytes(checkpoint, run.config))
    # Those of later epochs go too: a damaged one would otherwise count as the newest.
    kept = [each for each in run.checkpoint_paths() if each <= path][-NUM_KEPT:]
    for each in set(run.checkpoint_paths()) - set(kept):
        each.unlink()


def newest_checkpoint(run: Run) -> Checkpoint | None:
    """Read the newest intact checkpoint of a run. Returns None if there is none.

    Raises:
        FmnistError: if that checkpoint was written with another configuration than the run's.
    """
    for path in reversed(run.checkpoint_paths()):
        try:
            return from_bytes(read_bounded(path, MAX_MODEL_BYTES, "remove it"), run.config, path)
        except DamagedCheckpointError as error:
            log.warning("%s; it is skipped", error)
    return None


def remove_checkpoints(run: Run) -> None:
    """Remove all checkpoints of a run."""
    for path in run.checkpoint_paths():
        path.unlink(missing_ok=True)


def to_bytes(checkpoint: Checkpoint, config: Config) -> bytes:
    """Serialize a checkpoint as a safetensors file whose metadata contain the hash of the whole file.

    The hash is computed with `NO_HASH` in its place.
    """
    arrays = {
        **{f"weights/{name}": array for name, array in checkpoint.weights.items()},
        **{f"optimizer/{name}": array for name, array in checkpoint.optimizer.items()},
        "losses": checkpoint.losses,
    }
    header = CheckpointHeader(config_sha256=_config_hash(config), history=checkpoint.history)
    content = save(arrays, {"sha256": NO_HASH, "header": json.dumps(header.to_json())})
    return content.replace(NO_HASH.encode(), sha256(content).encode(), 1)


def from_bytes(content: bytes, config: Config, path: Path) -> Checkpoint:
    """Parse the content of a checkpoint file.

    Args:
        content: as `to_bytes` returns it.
        config: the run's configuration.
        path: the file, for error messages.

    Raises:
        DamagedCheckpointError: if a single bit differs from what was written.
        FmnistError: if it was written with another configuration or by another version of fmnist.
    """
    try:
        header_size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + header_size])["__metadata__"]
        found = metadata["sha256"]
        if sha256(content.replace(found.encode(), NO_HASH.encode(), 1)) != found:
            raise DamagedCheckpointError(f"{path} is damaged (its SHA-256 differs)")
        values, arrays = dict(json.loads(metadata["header"])), load(content)
        losses = arrays.pop("losses")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path} is damaged (it is no complete checkpoint)") from error
    header = parse_document(path, values, CheckpointHeader, "remove it")
    is_complete = all(row.keys() == set(HISTORY_COLUMNS) for row in header.history)
    if not is_complete or len(header.history) > config.epochs or losses.ndim != 1 or losses.dtype != np.float32:
        raise DamagedCheckpointError(f"{path} is damaged (its history or its losses are not those of this run)")
    if header.config_sha256 != _config_hash(config):
        raise FmnistError(
            f"{path} was written with other settings than those in {path.parent / 'config.json'}; restore that file"
        )

    def with_prefix(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    return Checkpoint(with_prefix("weights/"), with_prefix("optimizer/"), losses, header.history)


def _config_hash(config: Config) -> str:
    return sha256(json.dumps(config.to_json(), sort_keys=True).encode())


class RunCheckpoint(keras.callbacks.Callback):
    """Write completed epochs to the run folder: checkpoint, weights, history, curves.

    On a CPU, every epoch is written. On a GPU, those are skipped that complete soon after one that was written. The
    last epoch is always written and drawn.
    """

    def __init__(self, run: Run, sampler: EpochSampler):
        super().__init__()
        self.run, self.sampler = run, sampler
        self.latest: Checkpoint | None = None
        self.history: History = []
        self.checkpoint_interval = GPU_CHECKPOINT_INTERVAL if is_on_gpu() else 0.0
        self.started = self.drawn_at = time.perf_counter()
        self.written_at = -math.inf
        self.drawn: Checkpoint | None = None

    def restore(self, network: keras.Sequential) -> int:
        """Load the newest checkpoint of the run into a network, its optimizer and the sampler.

        Args:
            network: compiled, with its initial weights, and its optimizer built.

        Returns:
            The number of completed epochs.
        """
        checkpoint = newest_checkpoint(self.run)
        if checkpoint is None:
            if self.run.weights_path.exists():
                log.warning("%s has no intact checkpoint: training starts from the beginning", self.run.folder)
            return 0
        set_weights(network, checkpoint.weights, self.run.folder)
        set_optimizer_state(network.optimizer, checkpoint.optimizer)
        if checkpoint.losses.shape != self.sampler.losses.shape:
            raise FmnistError(
                f"the newest checkpoint in {self.run.folder} has losses of shape {checkpoint.losses.shape}; expected "
                f"{self.sampler.losses.shape}, so train again into a new folder"
            )
        self.sampler.losses[:] = checkpoint.losses
        self.latest, self.history = checkpoint, list(checkpoint.history)
        # The run may have been interrupted after its checkpoint and before these files.
        write_run_files(self.run, checkpoint)
        self.draw()
        return len(checkpoint.history)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the files, unless they were written just before."""
        now = time.perf_counter()
        more = {
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": round(now - self.started, 3),
        }
        self.history.append(history_row(epoch, {**(logs or {}), **more}))
        if now - self.written_at >= self.checkpoint_interval:
            self._write()
        if now - self.drawn_at >= CURVES_INTERVAL:
            self.draw()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Write and draw the last epoch if it was skipped."""
        if not self.latest or len(self.latest.history) < len(self.history):
            self._write()
        self.draw()

    def _write(self) -> None:
        """Write checkpoint, weights and history. The checkpoint is first: the others can be written again from it."""
        checkpoint = Checkpoint(
            weights=get_weights(self.model),
            optimizer=get_optimizer_state(self.model.optimizer),
            losses=self.sampler.losses.copy(),
            history=list(self.history),
        )
        write_checkpoint(self.run, checkpoint)
        self.latest, self.written_at = checkpoint, time.perf_counter()
        write_run_files(self.run, checkpoint)

    def draw(self) -> None:
        """Draw the curves of the newest checkpoint, unless they are drawn. A failure is logged."""
        if not self.latest or self.latest is self.drawn:
            return
        try:
            figure = curves.training_curves(self.latest.history, self.run.config.first_hard_epoch)
            plots.save(figure, self.run.folder / "curves.png")
        except Exception as error:
            log.warning("curves.png could not be drawn, which training does not need: %s", one_line(error))
        self.drawn, self.drawn_at = self.latest, time.perf_counter()


def write_run_files(run: Run, checkpoint: Checkpoint) -> None:
    """Write the files that other programs read: weights and history."""
    write_atomic(run.weights_path, save(checkpoint.weights))
    write_history(run.history_path, checkpoint.history)
