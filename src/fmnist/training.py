"""Train a network: data, augmentation, model, fit, run folder. Reads from top to bottom."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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
SCORING_BATCH_SIZE = 1_000
TINY = 1e-9
"""Keeps the logarithm finite where a probability has underflowed."""


def train(
    config: Config,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    *,
    dataset: data.Dataset | None = None,
    folder: str | Path | None = None,
) -> runs.Run:
    """Train a network and export it.

    The order, the augmentation and the dropout of an epoch follow from the seed and the epoch's number; the choice
    of its images, where the configuration wants the hardest, also from the weights at the time.
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
        metrics=["accuracy", keras.metrics.Precision(name="precision"), keras.metrics.Recall(name="recall")],
    )
    network.fit(
        preparing.batches,
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

    That is the choice of the images (which also depends on the weights), their order and augmentation, and dropout.
    """

    def __init__(self, images: np.ndarray, one_hot_labels: np.ndarray, config: Config):
        super().__init__()
        self.images, self.labels, self.config = images, one_hot_labels, config
        self.losses: np.ndarray | None = None
        num_visited = math.ceil(config.visited * len(images))
        self.batches = Batches(images[:num_visited], one_hot_labels[:num_visited], config.batch_size)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Score the images if it is time, then choose, augment and reseed."""
        config = self.config
        if epoch in config.scored_before:
            self.losses = score(self.model, self.images, self.labels)
        visited = augment.visit(len(self.images), len(self.batches.images), self.losses, config.seed, epoch)
        self.batches.images = augment.augment(self.images, visited, config.seed, epoch, config.flip, config.shift)
        self.batches.labels = self.labels[visited]
        model.reseed_dropout(self.model, config.seed, epoch)


def score(network: keras.Sequential, images: np.ndarray, one_hot_labels: np.ndarray) -> np.ndarray:
    """Find out how hard each training image is for the network as it is now.

    Args:
        network: gives probabilities.
        images: (n, 28, 28) uint8.
        one_hot_labels: (n, classes).

    Returns:
        (n,) the cross-entropy of each.
    """
    probabilities = network.predict(Batches(images, one_hot_labels, SCORING_BATCH_SIZE), verbose=0)
    return -np.log((probabilities * one_hot_labels).sum(axis=1) + TINY)


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
