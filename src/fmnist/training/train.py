"""Train a network: load, split, build, fit, export. Reads from top to bottom."""

import time
from collections.abc import Sequence
from pathlib import Path

import keras
from msgspec.structs import replace

from fmnist.config import Config
from fmnist.data.dataset import Dataset, Split, load, load_from, split
from fmnist.errors import FmnistError
from fmnist.export.onnx import export_run, export_weights
from fmnist.files import lock_folder
from fmnist.models.muon import Muon
from fmnist.models.networks import build_network, choose_precision, fit_whitening
from fmnist.runs.run import Run, create_run, new_run_folder, open_run, record_environment, remove_exports
from fmnist.training.checkpoints import Checkpoint, RunCheckpoint, remove_checkpoints
from fmnist.training.epochs import EpochSampler, one_hot, validation_batches

NUM_WHITENING_IMAGES = 5_000
"""As many as the CIFAR-10 speedrun uses: enough to estimate the covariance of 3x3 patches."""

Callbacks = Sequence[keras.callbacks.Callback]


def train(
    config: Config,
    callbacks: Callbacks = (),
    *,
    dataset: Dataset | None = None,
    folder: str | Path | None = None,
) -> Run:
    """Train a network and export it.

    After every epoch the run folder has the weights, a row of `history.csv`, `curves.png` and a checkpoint, from which
    `resume` continues an interrupted run. Augmentation and dropout of an epoch follow from seed and epoch. The
    selection and order of its images also follow from the losses of earlier epochs.

    Args:
        config: what to train, from `Config.from_preset`.
        callbacks: further Keras callbacks. If one stops the training, `resume` can continue it. An epoch that is
            stopped half-way counts as completed.
        dataset: the data, if it is loaded already. None loads what `config.data` names.
        folder: the run folder. None creates a new one under `runs/`.

    Returns:
        The finished run.

    Raises:
        FmnistError: if the data or the folder cannot be used.
        KeyboardInterrupt: on Ctrl-C. Completed epochs are kept.
    """
    dataset = dataset or load(config.data)
    started = time.perf_counter()
    images = split(dataset, config.seed, config.full)
    folder = Path(folder) if folder else new_run_folder(config.preset)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        run = create_run(replace(config, data=dataset.folder), folder)
        precision = choose_precision(config.precision)
        checkpoint = fit(run, dataset, images, precision, callbacks)
    train_seconds = time.perf_counter() - started

    export_weights(run, checkpoint.weights, checkpoint.history, dataset, images, precision, train_seconds)
    return run


def resume(
    run: Run | str | Path,
    callbacks: Callbacks = (),
    *,
    dataset: Dataset | None = None,
) -> Run:
    """Continue an interrupted run after its last completed epoch, whatever interrupted it.

    On TensorFlow's CPU backend, with the same machine, versions and number of threads, weights and history are bit for
    bit those of an uninterrupted run. Changes since the interruption are logged as a warning.

    Args:
        run: the run, or its folder. A finished run is returned as it is.
        callbacks: as for `train`.
        dataset: the run's data, if it is loaded already.

    Returns:
        The finished run.

    Raises:
        FmnistError: if there is no such run, its data is not found, or another process uses the folder.
        KeyboardInterrupt: on Ctrl-C. Completed epochs are kept.
    """
    run = run if isinstance(run, Run) else open_run(run)
    if run.status == "finished":
        return run
    dataset = dataset or load_from(run.config.data)
    images = run.split(dataset)
    with lock_folder(run.folder):
        precision = choose_precision(run.config.precision)
        # A trained run lacks an intact export only.
        checkpoint = fit(run, dataset, images, precision, callbacks) if run.status == "training" else None
    if checkpoint:
        export_weights(run, checkpoint.weights, checkpoint.history, dataset, images, precision)
    else:
        export_run(run, dataset)
    return run


def fit(run: Run, dataset: Dataset, images: Split, precision: str, callbacks: Callbacks = ()) -> Checkpoint:
    """Train the network of a run from its newest checkpoint, or from the beginning, to its last epoch.

    Args:
        run: a new or interrupted run, its folder locked by this process.
        dataset: the run's data.
        images: the same, split as the run does.
        precision: `float32` or `bfloat16`.
        callbacks: as for `train`.

    Returns:
        The state after the last epoch.

    Raises:
        FmnistError: if a callback stopped the training before an epoch was completed.
    """
    config, num_classes = run.config, len(dataset.class_names)
    record_environment(run, dataset, keras.backend.backend(), precision)
    remove_exports(run)

    network = build_network(config, num_classes, precision)
    fit_whitening(network, images.train_images[:NUM_WHITENING_IMAGES])
    labels = one_hot(images.train_labels, num_classes)
    sampler = EpochSampler(images.train_images, labels, dataset.class_names, config)
    network.compile(
        optimizer=make_optimizer(config, num_steps=len(sampler.batches) * config.epochs),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
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
        validation_data=None if config.full else validation_batches(images, num_classes),
        callbacks=[sampler, run_checkpoint, *callbacks],
        verbose=0,
    )
    checkpoint = run_checkpoint.latest
    if checkpoint is None:
        raise FmnistError(f"run {run.folder} stopped before its first epoch was completed; train more epochs")
    # A callback may have stopped the training early: then the checkpoints are still needed.
    if len(checkpoint.history) == config.epochs:
        remove_checkpoints(run)
    return checkpoint


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
