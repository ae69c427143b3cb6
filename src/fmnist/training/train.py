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

from fmnist import atomic, locks, plots
from fmnist.config import Config
from fmnist.data import dataset as data
from fmnist.errors import one_line
from fmnist.export import onnx as export
from fmnist.models import muon as optimizers
from fmnist.models import networks as model
from fmnist.runs import run as runs
from fmnist.training import augment, checkpoints
from fmnist.training import photo_augment as photolike
from fmnist.training.checkpoints import Checkpoint

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

    Augmentation and dropout of an epoch follow from the seed and the epoch's number; the choice of its images and
    their order, and what is mixed or disturbed by place in it, also from the losses that the epochs before it had.
    After every epoch the run folder holds its weights, its row of `history.csv`, its `curves.png` and a checkpoint,
    from which `resume` goes on if the run is cut off.

    Args:
        config: what to train, from `Config.from_preset`.
        callbacks: further Keras callbacks, to watch the run with. One that stops the training leaves a run that
            `resume` goes on with; if it stops in mid-epoch, that epoch counts as over.
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
    folder = Path(folder) if folder else runs.new_folder(config.preset)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.hold(folder):
        run = runs.create(replace(config, data=dataset.folder), folder)
        fit(run, dataset, parts, callbacks)
    train_seconds = time.perf_counter() - started

    export.finish(run, dataset, train_seconds)
    return run


def resume(
    run: runs.Run | str | Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    *,
    dataset: data.Dataset | None = None,
) -> runs.Run:
    """Go on with a run that was cut off, whatever cut it off and when, to the end that it would have had.

    It goes on after the last epoch that was over. On TensorFlow's CPU backend, the same machine, versions and number
    of threads, weights and history end up the same to the bit; what has changed since is said in a warning.

    Args:
        run: the run, or its folder. If it is complete, nothing is done.
        callbacks: as for `train`.
        dataset: the run's data, if it is in memory already.

    Returns:
        The finished run.

    Raises:
        FmnistError: if there is no such run, its data is not at hand or another process works on it.
        KeyboardInterrupt: as it came.
    """
    run = run if isinstance(run, runs.Run) else runs.open_run(run)
    if run.is_complete:
        return run
    dataset = dataset or data.load_from(run.config.data)
    parts = data.split(dataset, run.config.seed, run.config.full)
    with locks.hold(run.folder):
        # A run that is trained has no checkpoints any more; what it lacks is a whole export.
        if checkpoints.exist(run) or not run.is_trained:
            fit(run, dataset, parts, callbacks)

    export.finish(run, dataset)
    return run


def fit(
    run: runs.Run, dataset: data.Dataset, parts: data.Split, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> None:
    """Train the network of a run from its newest checkpoint, or from the beginning, to its last epoch.

    Args:
        run: new or cut off, its folder held by this process.
        dataset: what it trains on.
        parts: the same, split by the run's seed.
        callbacks: as for `train`.
    """
    config = run.config
    precision = model.choose_precision(config.precision)
    runs.record_environment(run, dataset, keras.backend.backend(), precision)
    runs.unfinish(run)

    num_classes = len(dataset.class_names)
    network = model.build(config, num_classes, precision)
    model.whiten(network, parts.train_images[:WHITENING_IMAGES])
    labels = data.one_hot(parts.train_labels, num_classes)
    preparing = PrepareEpoch(parts.train_images, labels, dataset.class_names, config)
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
    recording = RecordRun(run, preparing)
    network.fit(
        preparing.batches,
        initial_epoch=recording.restore(network),
        epochs=config.epochs,
        shuffle=False,  # the batches come in the order in which `PrepareEpoch` put the images
        validation_data=None if config.full else validation,
        callbacks=[preparing, recording, *callbacks],
        verbose=0,
    )
    # Weights and history are all that the export needs; but a callback may have ended the training early.
    if run.is_trained:
        checkpoints.remove(run)


def make_optimizer(config: Config, num_steps: int) -> keras.optimizers.Optimizer:
    """Make the optimizer of a configuration for a run of so many steps."""
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.learning_rate)
    rate = keras.optimizers.schedules.PolynomialDecay(config.learning_rate, num_steps, end_learning_rate=0.0)
    return optimizers.Muon(rate, config.momentum, config.adam_share)


class Batches(keras.utils.PyDataset):
    """Images and their one-hot labels, in batches; both can be exchanged between epochs."""

    def __init__(self, images: np.ndarray, one_hot_labels: np.ndarray, batch_size: int):
        # On TensorFlow, Keras with threads of its own switches tf.data's autotuning off, which otherwise lets many an
        # epoch stand still at its end for as long as it took (docs/log.md). On JAX it asks for a batch before the first
        # epoch begins, and threads would have gathered more of them by then, from images not yet prepared, and be as
        # far behind in every epoch.
        super().__init__(workers=2 if keras.backend.backend() == "tensorflow" else 1)
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

    def __init__(self, images: np.ndarray, one_hot_labels: np.ndarray, class_names: tuple[str, ...], config: Config):
        super().__init__()
        self.images, self.labels, self.class_names, self.config = images, one_hot_labels, class_names, config
        num_visited = math.ceil(config.visited * len(images))
        self.losses = np.full(len(images), np.inf, np.float32)
        self.visited = np.arange(num_visited)
        self.recorder = RecordedCrossEntropy(num_visited)
        self.batches = Batches(images[:num_visited], one_hot_labels[:num_visited], config.batch_size)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Choose, augment and reseed."""
        config = self.config
        self.visited = augment.visit(self.losses, len(self.visited), config.seed, epoch)
        self.batches.images = augment.augment(self.images, self.visited, config.seed, epoch, config.flip, config.shift)
        self.batches.labels = self.labels[self.visited]
        if config.photolike:
            self.batches.images, self.batches.labels = photolike.disturb(
                self.batches.images, self.batches.labels, self.class_names, config.seed, epoch
            )
        if config.cutmix:
            self.batches.images, self.batches.labels = augment.cutmix(
                self.batches.images, self.batches.labels, config.cutmix, config.seed, epoch
            )
        reseed_dropout(self.model, config.seed, epoch)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Keep the losses before validation overwrites them."""
        self._keep_losses()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the losses where there is no validation."""
        if self.config.full:
            self._keep_losses()

    def _keep_losses(self) -> None:
        recorded = self.recorder.recorded()
        # An epoch that a callback ended early has not come to them all.
        self.losses[self.visited[: len(recorded)]] = recorded


def reseed_dropout(network: keras.Sequential, seed: int, epoch: int) -> None:
    """Make the dropout masks of an epoch follow from seed and epoch, whatever was drawn before."""
    for index, layer in enumerate(network.layers):
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign(augment.dropout_seed(seed, epoch, index))


class RecordedCrossEntropy(keras.metrics.CategoricalCrossentropy):
    """The mean cross-entropy, which also remembers how hard each image was as it was shown, in the order of coming.

    That is its cross-entropy less the entropy of its label, which no answer can avoid: else every mixture of two
    images would count as hard.
    """

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
        y_true = ops.cast(y_true, "float32")
        # exactly 0 for a label of one class
        entropies = -ops.sum(y_true * ops.log(y_true + export.TINY), axis=-1)
        losses = keras.losses.categorical_crossentropy(y_true, ops.cast(y_pred, "float32")) - entropies
        batch_size = ops.shape(losses)[0]
        places = (ops.arange(batch_size, dtype="int32") + self.position) % self.num_images
        self.losses.assign(ops.scatter_update(self.losses, ops.expand_dims(places, -1), losses))
        self.position.assign(self.position + batch_size)

    def reset_state(self) -> None:
        """Begin anew, at the first place."""
        super().reset_state()
        self.position.assign(0)

    def recorded(self) -> np.ndarray:
        """Give the losses of the images that came since the last reset, at most `num_images`, float32."""
        return keras.ops.convert_to_numpy(self.losses)[: int(self.position)]


class RecordRun(keras.callbacks.Callback):
    """Leave each finished epoch in the run folder: a checkpoint, weights, history, curves."""

    def __init__(self, run: runs.Run, preparing: PrepareEpoch):
        super().__init__()
        self.run, self.preparing = run, preparing
        self.history: runs.History = []
        self.started = 0.0

    def restore(self, network: keras.Sequential) -> int:
        """Take up the run where its newest checkpoint left it.

        Args:
            network: compiled, with its initial weights.

        Returns:
            How many epochs are over.
        """
        checkpoint = checkpoints.newest(self.run)
        if checkpoint is None:
            if self.run.weights_path.exists():
                log.warning("%s has no intact checkpoint: it starts from the beginning", self.run.folder)
            return 0
        model.set_weights(network, checkpoint.weights, self.run.folder)
        network.optimizer.build(network.trainable_variables)
        optimizers.set_state(network.optimizer, checkpoint.optimizer)
        self.preparing.losses[:] = checkpoint.losses
        self.history = checkpoint.history
        # The run may have been cut off between its checkpoint and these.
        publish(self.run, checkpoint)
        return len(self.history)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the files, the checkpoint first: the others can be made again from it."""
        more = {
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": round(time.perf_counter() - self.started, 3),
        }
        self.history.append(runs.history_row(epoch, {**(logs or {}), **more}))
        checkpoint = Checkpoint(
            weights=model.get_weights(self.model),
            optimizer=optimizers.get_state(self.model.optimizer),
            losses=self.preparing.losses,
            history=self.history,
        )
        checkpoints.write(self.run, checkpoint)
        publish(self.run, checkpoint)


def publish(run: runs.Run, checkpoint: Checkpoint) -> None:
    """Write what others read of a checkpoint: weights, history and curves.

    A figure that fails is reported, and training goes on.
    """
    atomic.write(run.weights_path, save(checkpoint.weights))
    runs.write_history(run, checkpoint.history)
    try:
        plots.save(plots.training_curves(checkpoint.history), run.folder / "curves.png")
    except Exception as error:
        log.warning("curves.png could not be drawn, training goes on: %s", one_line(error))
