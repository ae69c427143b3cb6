"""Train a network: data, augmentation, model, fit, run folder. Reads from top to bottom."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import save

from fmnist import atomic, augment, data, export, model, plots, runs
from fmnist.config import Config
from fmnist.errors import one_line
from fmnist.optimizers import Muon

log = logging.getLogger("fmnist")

WHITENING_IMAGES = 5_000
"""As many as the speedrun takes: enough to know how neighbouring pixels go together."""
VALIDATION_BATCH_SIZE = 500
"""Divides 5,000."""


def train(
    config: Config,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    *,
    dataset: data.Dataset | None = None,
    folder: str | Path | None = None,
) -> runs.Run:
    """Train a network and export it.

    The order, the augmentation and the dropout of an epoch follow from the seed and the epoch's number; the choice
    of its images, where the configuration wants the hardest, also from the losses that the epochs before it had.
    After every epoch the run folder holds its weights, its row of `history.csv` and its `curves.png`.

    Args:
        config: what to train, from `Config.from_preset`.
        callbacks: further Keras callbacks, to watch the run with.
        dataset: the data, if it is in memory already; else what `config.data` names is loaded.
        folder: for the run; None takes a new name under `runs/`.

    Returns:
        The finished run.

    Raises:
        FmnistError: if the data or the folder cannot be used.
        KeyboardInterrupt: as it came; the epochs that were over stay usable.
    """
    dataset = dataset or data.load(config.data)
    started = time.perf_counter()
    parts = data.split(dataset, config.seed, config.full)
    run = runs.create(replace(config, data=dataset.folder), Path(folder) if folder else None)
    precision = model.choose_precision(config.precision)
    runs.write_environment(run, keras.backend.backend(), precision, dataset.sha256)

    num_classes = len(dataset.class_names)
    network = model.build(config, num_classes, precision)
    model.whiten(network, data.normalise(parts.train_images[:WHITENING_IMAGES]))
    preparing = PrepareEpoch(parts.train_images, data.one_hot(parts.train_labels, num_classes), config)
    validation = Batches(parts.val_images, data.one_hot(parts.val_labels, num_classes), VALIDATION_BATCH_SIZE)
    network.compile(
        optimizer=make_optimizer(config, num_steps=len(preparing.batches) * config.epochs),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=[
            "accuracy",
            keras.metrics.Precision(name="precision"),
            keras.metrics.Recall(name="recall"),
            preparing.recorder,
        ],
    )
    network.fit(
        preparing.batches,
        shuffle=False,  # the batches come in the order in which `PrepareEpoch` put the images
        epochs=config.epochs,
        validation_data=None if config.full else validation,
        callbacks=[preparing, RecordRun(run), *callbacks],
        verbose=0,
    )
    train_seconds = time.perf_counter() - started

    export.finish(run, dataset, train_seconds)
    return run


def make_optimizer(config: Config, num_steps: int) -> keras.optimizers.Optimizer:
    """Make the optimizer of a configuration for a run of so many steps."""
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.learning_rate)
    rate = keras.optimizers.schedules.PolynomialDecay(config.learning_rate, num_steps, end_learning_rate=0.0)
    return Muon(rate, config.momentum, config.adam_share)


class Batches(keras.utils.PyDataset):
    """Images and their one-hot labels, in batches; both can be exchanged between epochs."""

    def __init__(self, images: np.ndarray, one_hot_labels: np.ndarray, batch_size: int):
        # With threads of its own, Keras switches tf.data's autotuning off, which otherwise lets many an epoch stand
        # still at its end for as long as it took (LOG.md). The batches come in order all the same.
        super().__init__(workers=2)
        self.images, self.labels, self.batch_size = images, one_hot_labels, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return data.normalise(self.images[chosen]), self.labels[chosen]


class PrepareEpoch(keras.callbacks.Callback):
    """Fill the batches of each epoch, and make all that differs between epochs follow from its number.

    That is the choice of the images (which also depends on their losses before), their order and augmentation, and
    dropout. To go through the hard images costs less than to find them by a pass over all, and an image that was
    passed over comes back when those that are gone through have become easier than it was.
    """

    def __init__(self, images: np.ndarray, one_hot_labels: np.ndarray, config: Config):
        super().__init__()
        self.images, self.labels, self.config = images, one_hot_labels, config
        num_visited = math.ceil(config.visited * len(images))
        self.losses = np.full(len(images), np.inf, np.float32)
        self.visited = np.arange(num_visited)
        self.recorder = RecordedCrossEntropy(num_visited)
        self.batches = Batches(images[:num_visited], one_hot_labels[:num_visited], config.batch_size)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Choose, augment and reseed."""
        config = self.config
        self.visited = augment.visit(self.losses, len(self.visited), config.seed, epoch)
        self.batches.images = augment.augment(
            self.images, self.visited, config.seed, epoch, config.flip, config.shift, config.cutout
        )
        self.batches.labels = self.labels[self.visited]
        model.reseed_dropout(self.model, config.seed, epoch)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Keep the losses before validation overwrites them."""
        self.losses[self.visited] = self.recorder.recorded()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the losses where there is no validation."""
        if self.config.full:
            self.losses[self.visited] = self.recorder.recorded()


class RecordedCrossEntropy(keras.metrics.CategoricalCrossentropy):
    """The mean cross-entropy, which also remembers that of each image in the order of their coming."""

    def __init__(self, num_images: int):
        """Make room.

        Args:
            num_images: how many to remember; if more come, they take the places of the first.
        """
        super().__init__(name="cross_entropy", dtype="float32")
        self.num_images = num_images
        self.losses = self.add_variable((num_images,), "zeros", name="losses")
        self.position = self.add_variable((), "zeros", dtype="int32", name="position")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch; arguments as Keras gives them."""
        super().update_state(y_true, y_pred, sample_weight)
        ops = keras.ops
        losses = keras.losses.categorical_crossentropy(y_true, ops.cast(y_pred, "float32"))
        batch_size = ops.shape(losses)[0]
        places = (ops.arange(batch_size, dtype="int32") + self.position) % self.num_images
        self.losses.assign(ops.scatter_update(self.losses, ops.expand_dims(places, -1), losses))
        self.position.assign(self.position + batch_size)

    def reset_state(self) -> None:
        """Begin anew, at the first place."""
        super().reset_state()
        self.position.assign(0)

    def recorded(self) -> np.ndarray:
        """Give the losses, (num_images,) float32."""
        return keras.ops.convert_to_numpy(self.losses)


class RecordRun(keras.callbacks.Callback):
    """Leave each finished epoch in the run folder: weights, history, curves."""

    def __init__(self, run: runs.Run):
        super().__init__()
        self.run = run
        self.history: runs.History = []
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the files. A figure that fails is reported, and training goes on."""
        more = {
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": round(time.perf_counter() - self.started, 3),
        }
        self.history.append(runs.history_row(epoch, {**(logs or {}), **more}))
        atomic.write(self.run.weights_path, save(model.get_weights(self.model)))
        runs.write_history(self.run, self.history)
        try:
            plots.save(plots.training_curves(self.history), self.run.folder / "curves.png")
        except Exception as error:
            log.warning("curves.png could not be drawn, training goes on: %s", one_line(error))
