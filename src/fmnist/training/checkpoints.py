"""Checkpoints: all that the rest of a run follows from, in one file that shows when it is damaged.

Together with the configuration, the data and the number of the epoch: what is drawn at random follows from those.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fmnist import atomic, untrusted
from fmnist.config import Config
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.runs import run as runs

log = logging.getLogger("fmnist")

NUM_KEPT = 2
"""The newest, and the one to fall back to."""
NO_HASH = "0" * 64
"""Stands in the file where its hash will be, while that is computed."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run between two epochs."""

    weights: dict[str, np.ndarray]
    """As `model.get_weights` gives them."""
    optimizer: dict[str, np.ndarray]
    """As `optimizers.get_state` gives it."""
    losses: np.ndarray
    """(n,) how hard each training image was when it was last gone through."""
    history: runs.History
    """A row for each epoch that is over."""


class DamagedCheckpointError(FmnistError):
    """A file that is not, to the bit, what was written."""


def write(run: runs.Run, checkpoint: Checkpoint) -> None:
    """Leave a checkpoint in the run folder, in one step, and drop all but it and the one of the epoch before.

    Raises:
        OSError: if it cannot be written; those before are intact.
    """
    num_epochs = len(checkpoint.history)
    atomic.write(_path(run, num_epochs), to_bytes(checkpoint, run.config))
    # By number, not by rank: a damaged one of a later epoch, which is repeated now, must not push this one out.
    kept = {_path(run, number) for number in range(num_epochs - NUM_KEPT + 1, num_epochs + 1)}
    for path in set(_paths(run)) - kept:
        path.unlink()


def newest(run: runs.Run) -> Checkpoint | None:
    """Read the newest checkpoint of a run that is intact; None if there is none.

    Raises:
        FmnistError: if the newest one that is intact belongs to another configuration than `config.json` has.
    """
    for path in reversed(_paths(run)):
        try:
            return from_bytes(untrusted.read(path, untrusted.MAX_MODEL_BYTES, "remove it"), run.config, path)
        except DamagedCheckpointError as error:
            log.warning("%s; it is passed over", error)
    return None


def exist(run: runs.Run) -> bool:
    """Whether a run has any, intact or not."""
    return bool(_paths(run))


def remove(run: runs.Run) -> None:
    """Drop the checkpoints of a run that needs them no more."""
    for path in _paths(run):
        path.unlink(missing_ok=True)


def to_bytes(checkpoint: Checkpoint, config: Config) -> bytes:
    """Give the content of a checkpoint's file: a safetensors file whose metadata has the hash of all its bytes.

    The hash is computed with `NO_HASH` in its place.
    """
    arrays = {
        **{f"weights/{name}": array for name, array in checkpoint.weights.items()},
        **{f"optimizer/{name}": array for name, array in checkpoint.optimizer.items()},
        "losses": checkpoint.losses,
    }
    metadata = {
        "sha256": NO_HASH,
        "format_version": str(runs.FORMAT_VERSION),
        "config_sha256": _config_hash(config),
        "history": json.dumps(checkpoint.history),
    }
    content = save(arrays, metadata)
    return content.replace(NO_HASH.encode(), idx.sha256(content).encode(), 1)


def from_bytes(content: bytes, config: Config, path: Path) -> Checkpoint:
    """Read what `to_bytes` gave.

    Args:
        content: of the file.
        config: of the run.
        path: for the messages.

    Raises:
        DamagedCheckpointError: if a single bit is not as it was written.
        FmnistError: if it was written for another configuration, or by another version of fmnist.
    """
    try:
        header_size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + header_size])["__metadata__"]
        found = metadata["sha256"]
        if idx.sha256(content.replace(found.encode(), NO_HASH.encode(), 1)) != found:
            raise DamagedCheckpointError(f"{path} is damaged (its SHA-256 differs)")
        arrays = load(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path} is damaged (it is no whole checkpoint)") from error
    runs.check_version(path, {"format_version": int(metadata["format_version"])})
    if metadata["config_sha256"] != _config_hash(config):
        raise FmnistError(
            f"{path} was written under other settings than {path.parent / 'config.json'} has; put that back as it was"
        )

    def below(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    return Checkpoint(below("weights/"), below("optimizer/"), arrays["losses"], json.loads(metadata["history"]))


def _config_hash(config: Config) -> str:
    return idx.sha256(json.dumps(config.to_json(), sort_keys=True).encode())


def _path(run: runs.Run, num_epochs: int) -> Path:
    return run.folder / f"checkpoint-{num_epochs:04d}.safetensors"


def _paths(run: runs.Run) -> list[Path]:
    """Those in the folder, oldest first."""
    return sorted(run.folder.glob("checkpoint-*.safetensors"))
