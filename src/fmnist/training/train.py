"""Train a network: load, split, build, fit, export. Reads from top to bottom."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from msgspec.structs import replace

from fmnist.config import Config
from fmnist.data.dataset import Dataset, Split, check_is_dataset, check_trainable, evenly_spaced, load, split_dataset
from fmnist.data.photos import PhotoSet, load_photos
from fmnist.errors import FmnistError, type_of
from fmnist.export.onnx import TrainedNetwork, export, read_trained
from fmnist.files import as_path, lock_folder
from fmnist.models.muon import Muon
from fmnist.models.networks import build_network, choose_precision, fit_whitening, keras_defaults
from fmnist.quiet import check_backend
from fmnist.runs.data import OTHER_COMPUTER, data_to_resume
from fmnist.runs.folders import make_run_folder
from fmnist.runs.run import (
    Run,
    create_run,
    open_run,
    record_environment,
    remove_exports,
    remove_without_epochs,
)
from fmnist.training.checkpoints import RunCheckpoint, remove_checkpoints
from fmnist.training.epochs import EpochSampler, one_hot, validation_batches
from fmnist.training.photo_batches import AnyOfCrossentropy
from fmnist.training.progress import watch

NUM_WHITENING_IMAGES = 5_000
"""As many as the CIFAR-10 speedrun uses: enough to estimate the covariance of 3x3 patches."""

IMBALANCE = 10
"""Ratio of the numbers of images of two classes from which on there is a warning."""

log = logging.getLogger("fmnist")

Callbacks = Sequence[keras.callbacks.Callback]


def train(
    config: Config | str,
    callbacks: Callbacks = (),
    *,
    dataset: Dataset | None = None,
    folder: str | Path | None = None,
    verbose: bool | None = None,
) -> Run:
    """Train a network and export it.

    After every epoch the run folder has the weights, a row of `history.csv`, `curves.png` and a checkpoint, from which
    `resume` continues an interrupted run. Augmentation and dropout of an epoch follow from seed and epoch. The
    selection and order of its images also follow from the losses of earlier epochs.

    Args:
        config: what to train, from `Config.from_preset`, or the name of a preset.
        callbacks: further Keras callbacks. If one stops the training, `resume` can continue it. An epoch that is
            stopped half-way counts as completed.
        dataset: the data, if it is loaded already or in memory. None loads what `config.data` names.
        folder: the run folder. None creates a new one under `runs/`.
        verbose: whether to show the progress. None shows it in a terminal, and in a notebook without `LiveCurves`.

    Returns:
        The finished run.

    Raises:
        FmnistError: if the data or the folder cannot be used.
        KeyboardInterrupt: on Ctrl-C. Completed epochs are kept.
    """
    config = Config.from_preset(config) if isinstance(config, str) else config
    if not isinstance(config, Config):
        raise FmnistError(
            f"the configuration is {type_of(config)}; expected the name of a preset, as 'fast', or a fmnist.Config, as "
            "from fmnist.Config.from_preset('fast', epochs=3)"
        )
    check_backend(keras.backend.backend(), "KERAS_BACKEND or keras.json")
    check_callbacks(config, callbacks)
    check_is_dataset(dataset)
    folder = as_path(folder, "folder") if folder else None
    dataset = dataset or load(config.data)
    started = time.perf_counter()
    check_trainable(dataset)
    warn_of_imbalance(dataset, config)
    config = replace(config.for_data(dataset.is_fashion_mnist), data=dataset.path)
    photos = photos_to_train_on(config, dataset)
    split = split_dataset(dataset, config.seed, config.full)
    is_there = folder is not None and folder.exists()
    folder = folder or make_run_folder(config.preset)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder) as lock:
        run = create_run(config, folder)
        try:
            with watch(verbose, callbacks) as watching:
                trained = fit(run, dataset, split, photos, [*watching, *callbacks])
        except Exception as error:
            if not isinstance(error, OSError):  # of the disk: training again into this folder can work
                remove_without_epochs(run, keep_folder=is_there)
            raise
        trained = dataclasses.replace(trained, train_seconds=time.perf_counter() - started)

        export(run, lock, trained, dataset, split)
    return run


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


def resume(
    run: Run | str | Path,
    callbacks: Callbacks = (),
    *,
    dataset: Dataset | None = None,
    verbose: bool | None = None,
) -> Run:
    """Continue an interrupted run after its last completed epoch, whatever interrupted it.

    On TensorFlow's CPU backend, with the same machine, versions and number of threads, weights and history are bit for
    bit those of an uninterrupted run. Changes since the interruption are logged as a warning.

    Args:
        run: the run, or its folder. A finished run is returned as it is.
        callbacks: as for `train`.
        dataset: the run's data, if it is loaded already.
        verbose: as for `train`.

    Returns:
        The finished run.

    Raises:
        FmnistError: if there is no such run, its data is not found, or another process uses the folder.
        KeyboardInterrupt: on Ctrl-C. Completed epochs are kept.
    """
    run = run if isinstance(run, Run) else open_run(run)
    check_is_dataset(dataset)
    if run.status == "finished":
        if dataset:
            run.check_data(dataset, run.environment().data_sha256)
        return run
    dataset = dataset or data_to_resume(run)
    refuse_photos_elsewhere(run)
    photos = photos_to_train_on(run.config, dataset)
    split = run.split(dataset)
    with lock_folder(run.folder) as lock:
        refuse_without_weights(run)
        check_backend(keras.backend.backend(), "KERAS_BACKEND or keras.json")
        if run.status == "training":
            check_callbacks(run.config, callbacks)
            with watch(verbose, callbacks) as watching:
                trained = fit(run, dataset, split, photos, [*watching, *callbacks])
        else:  # all epochs are done, only the export is missing
            trained = read_trained(run, dataset)
        export(run, lock, trained, dataset, split)
    return run


def check_callbacks(config: Config, callbacks: Callbacks) -> None:
    """Raise an `FmnistError` for what is no list of callbacks, and for callbacks that cannot work.

    Those are callbacks that set the learning rate of an optimizer that has a schedule of its own, and those that need
    an optimizer with moving averages.
    """
    if not isinstance(callbacks, list | tuple):
        hint = ": put it into a list" if isinstance(callbacks, keras.callbacks.Callback) else ""
        raise FmnistError(f"callbacks is {type_of(callbacks)}; expected a list of Keras callbacks{hint}")
    setters = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
    for callback in callbacks:
        if isinstance(callback, type):
            raise FmnistError(
                f"the callback {callback.__name__} is a class; expected an object, {callback.__name__}(...)"
            )
        if not isinstance(callback, keras.callbacks.Callback):
            hint = ", as keras.callbacks.LambdaCallback(on_epoch_end=...)" if callable(callback) else ""
            raise FmnistError(f"a callback is {type_of(callback)}; expected a keras.callbacks.Callback{hint}")
        if isinstance(callback, keras.callbacks.SwapEMAWeights):
            raise FmnistError("SwapEMAWeights needs an optimizer with use_ema=True, which fmnist does not use; omit it")
        if config.optimizer == "muon" and isinstance(callback, setters):
            raise FmnistError(
                f"{type(callback).__name__} sets the learning rate, but that of {config.preset} decays by a schedule; "
                'omit the callback, or train with optimizer="adam"'
            )


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


def photos_to_train_on(config: Config, dataset: Dataset) -> PhotoSet | None:
    """Load the photos of a configuration. Returns None if it has none."""
    return load_photos(config.photos, len(dataset.class_names)) if config.photo_fraction else None


@keras_defaults()
def fit(
    run: Run, dataset: Dataset, split: Split, photos: PhotoSet | None = None, callbacks: Callbacks = ()
) -> TrainedNetwork:
    """Train the network of a run from its newest checkpoint, or from the beginning, to its last epoch.

    Args:
        run: a new or interrupted run, its folder locked by this process.
        dataset: the run's data.
        split: the same, split as the run does.
        photos: of `photos_to_train_on`.
        callbacks: as for `train`.
    """
    config = run.config
    num_outputs = config.num_outputs(len(dataset.class_names))
    precision = choose_precision(config.precision)
    record_environment(run, dataset, keras.backend.backend(), precision, photos.sha256 if photos else None)
    remove_exports(run)

    network = build_network(config, num_outputs, precision)
    # A split is shuffled. Without a split, the images are in the order of the file, which may be sorted by class.
    num_images = len(split.train_images)
    chosen = evenly_spaced(num_images, NUM_WHITENING_IMAGES) if config.full else slice(NUM_WHITENING_IMAGES)
    fit_whitening(network, split.train_images[chosen])
    labels = one_hot(split.train_labels, num_outputs)
    sampler = EpochSampler(split.train_images, labels, dataset.class_names, config, photos)
    network.compile(
        optimizer=make_optimizer(config, num_steps=len(sampler.batches) * config.epochs),
        loss=(AnyOfCrossentropy if photos else keras.losses.CategoricalCrossentropy)(
            label_smoothing=config.label_smoothing
        ),
        metrics=[
            "accuracy",
            keras.metrics.Precision(name="precision"),
            keras.metrics.Recall(name="recall"),
            sampler.loss_recorder,
        ],
    )
    run_checkpoint = RunCheckpoint(run, sampler)
    network.fit(
        sampler.batches,
        initial_epoch=run_checkpoint.restore(network),
        epochs=config.epochs,
        shuffle=False,  # `EpochSampler` has shuffled the images
        validation_data=None if config.full else validation_batches(split, num_outputs),
        callbacks=[sampler, run_checkpoint, *callbacks],
        verbose=0,
    )
    checkpoint = run_checkpoint.latest
    assert checkpoint  # Keras completes at least one epoch, also if a callback stops the training
    # If a callback has stopped the training early, the checkpoints are still needed.
    if len(checkpoint.history) == config.epochs:
        remove_checkpoints(run)
    return TrainedNetwork(checkpoint.weights, checkpoint.history, precision)


def make_optimizer(config: Config, num_steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of a configuration.

    Args:
        config: the configuration.
        num_steps: steps of the whole run, over which the learning rate of `muon` decays.
    """
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.learning_rate)
    rate = keras.optimizers.schedules.PolynomialDecay(config.learning_rate, num_steps, end_learning_rate=0.0)
    return Muon(rate, config.momentum, config.adam_lr_ratio)
