"""Checks before a training: what cannot work is refused, and what will disappoint is said."""

import logging
from collections.abc import Sequence

import keras
import numpy as np

from fmnist.config import PRESETS, Config
from fmnist.data.dataset import Dataset
from fmnist.errors import FmnistError, type_of
from fmnist.export.onnx import check_exportable, check_reference
from fmnist.models.custom import CustomParts
from fmnist.models.networks import build_network
from fmnist.runs.data import OTHER_COMPUTER
from fmnist.runs.run import Run

MONITORED = ("loss", "accuracy", "precision", "recall", "cross_entropy")
"""What is measured on training and, with the prefix `val_`, on validation images."""
IMBALANCE = 10
"""Ratio of the numbers of images of two classes from which on there is a warning."""

log = logging.getLogger("fmnist")


def warn_of_imbalance(dataset: Dataset, config: Config) -> None:
    """Log a warning where one class has ten times the images of another, because accuracy says little then."""
    counts = np.bincount(dataset.train_labels)
    most, fewest = int(counts.argmax()), int(counts.argmin())
    if counts[most] < IMBALANCE * counts[fewest]:
        return
    hint = "" if config.class_weights else "; class weights (--class-weights) give rare classes more weight"
    log.warning(
        "%s has %d training images and %s has %d: judge the network by the mean recall of the classes%s",
        dataset.class_names[most], counts[most], dataset.class_names[fewest], counts[fewest], hint,
    )  # fmt: skip


def warn_of_learning_rate(config: Config) -> None:
    """Log a warning where another optimizer than the preset's gets the preset's learning rate."""
    preset = PRESETS.get(config.preset)
    if preset is None or config.optimizer in {preset.optimizer, "custom"}:
        return
    if config.learning_rate == preset.learning_rate:
        log.warning(
            "learning rate %g is that of %s for %s; %s may need another (--lr, learning_rate=): the default of most "
            "optimizers of Keras is 0.001",
            config.learning_rate, config.preset, preset.optimizer, config.optimizer,
        )  # fmt: skip


def check_callbacks(config: Config, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Raise an `FmnistError` for what is no list of callbacks, and for callbacks that cannot work.

    Those are callbacks that set the learning rate where a schedule does, those that exchange the weights, and those
    that monitor validation where there is none.
    """
    if not isinstance(callbacks, list | tuple):
        hint = ": put it into a list" if isinstance(callbacks, keras.callbacks.Callback) else ""
        raise FmnistError(f"callbacks is {type_of(callbacks)}; expected a list of Keras callbacks{hint}")
    for callback in callbacks:
        if isinstance(callback, type):
            raise FmnistError(
                f"the callback {callback.__name__} is a class; expected an object, {callback.__name__}(...)"
            )
        if not isinstance(callback, keras.callbacks.Callback):
            hint = ", as keras.callbacks.LambdaCallback(on_epoch_end=...)" if callable(callback) else ""
            raise FmnistError(f"a callback is {type_of(callback)}; expected a keras.callbacks.Callback{hint}")
        if problem := _problem_of(callback, config) or _problem_of_monitor(callback, callbacks, config):
            raise FmnistError(f"{type(callback).__name__} {problem}")


def _problem_of(callback: keras.callbacks.Callback, config: Config) -> str | None:
    """Return why a callback cannot work with a configuration, and what to do. Returns None if it can."""
    kinds = keras.callbacks
    if isinstance(callback, kinds.SwapEMAWeights):
        return "exchanges the weights while a run writes its checkpoint; omit it"
    if isinstance(callback, kinds.BackupAndRestore):
        return (
            "replaces the weights by those of its own backup, but a run has checkpoints of its own; omit it, and "
            "continue an interrupted run with fmnist.resume"
        )
    if isinstance(callback, kinds.EarlyStopping) and callback.restore_best_weights:
        return (
            "with restore_best_weights=True changes the weights after the last checkpoint, and a run has those of its "
            "last epoch; omit restore_best_weights, and keep the best ones with ModelCheckpoint(save_best_only=True)"
        )
    if config.has_schedule and isinstance(callback, kinds.LearningRateScheduler | kinds.ReduceLROnPlateau):
        return (
            "sets the learning rate, but that of this run follows a schedule; omit the callback, or train at a "
            'constant rate, as with optimizer="adam" or schedule="constant"'
        )
    return None


def _problem_of_monitor(
    callback: keras.callbacks.Callback, callbacks: Sequence[keras.callbacks.Callback], config: Config
) -> str | None:
    """Return why a callback cannot have what it monitors. Returns None if it can.

    It can where a callback of the user's own, which may add values to the logs, is among the callbacks.
    """
    kinds = keras.callbacks
    if any(type(each) is kinds.LambdaCallback or not type(each).__module__.startswith("keras.") for each in callbacks):
        return None
    monitor = str(getattr(callback, "monitor", "") or "")
    if monitor and monitor.removeprefix("val_") not in MONITORED:
        expected = ", ".join([*MONITORED, *(f"val_{name}" for name in MONITORED)])
        return f"monitors {monitor}, which training does not measure; expected one of {expected}"
    is_used = not isinstance(callback, kinds.ModelCheckpoint) or callback.save_best_only
    if config.full and monitor.startswith("val_") and is_used:
        return (
            f"monitors {monitor}, but a run on all images (full) has no validation; monitor "
            f"{monitor.removeprefix('val_')}, or omit full"
        )
    return None


def refuse_without_weights(run: Run) -> None:
    """Raise an `FmnistError` if a run has a model but nothing to resume from: training would replace the model."""
    if run.manifest_path.is_file() and not run.weights_path.exists() and not run.checkpoint_paths():
        raise FmnistError(
            f"{run.folder} has a model but neither weights nor checkpoints to resume from; train into a new folder"
        )


def refuse_photos_elsewhere(run: Run) -> None:
    """Raise an `FmnistError` if the photos of a run, which may be another person's, are on another computer."""
    if run.config.photos and OTHER_COMPUTER.match(run.config.photos):
        raise FmnistError(
            f"the photos of {run.folder} are on another computer ({run.config.photos}), which is not asked for them; "
            "copy them, and train again with --photos"
        )


def check_custom_export(parts: CustomParts, config: Config, dataset: Dataset) -> None:
    """Raise an `FmnistError` if a user's network could not be exported after its training."""
    if keras.backend.backend() == "tensorflow":
        num_outputs = config.num_outputs(len(dataset.class_names))
        check_exportable(build_network(config, num_outputs, "float32", parts.network), dataset.class_names)
    else:
        check_reference(parts)
