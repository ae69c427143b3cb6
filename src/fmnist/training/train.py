"""Train a network: load, split, build, fit, export. Reads from top to bottom."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
from msgspec.structs import replace

from fmnist.config import Config
from fmnist.data.dataset import Dataset, Split, check_is_dataset, check_trainable, evenly_spaced, load, split_dataset
from fmnist.data.photos import PhotoSet, load_photos
from fmnist.errors import FmnistError, type_of
from fmnist.export.onnx import TrainedNetwork, export, read_trained
from fmnist.files import as_path, lock_folder
from fmnist.models.custom import CustomParts
from fmnist.models.devices import cache_programs, choose_precision, gpu_name, is_on_gpu
from fmnist.models.networks import build_network, fit_whitening, keras_defaults
from fmnist.models.user_functions import Augment, NetworkFunction
from fmnist.quiet import check_backend
from fmnist.runs.data import data_to_resume
from fmnist.runs.environment import describe_environment
from fmnist.runs.folders import make_run_folder
from fmnist.runs.run import Run, create_run, open_run, record_environment, remove_exports, remove_without_epochs
from fmnist.training.checkpoints import RunCheckpoint, remove_checkpoints
from fmnist.training.checks import (
    check_callbacks,
    check_custom_export,
    refuse_photos_elsewhere,
    refuse_without_weights,
    warn_of_imbalance,
    warn_of_learning_rate,
)
from fmnist.training.epochs import Batches, EpochSampler, one_hot, prefetch, validation_batches
from fmnist.training.optimizers import make_optimizer
from fmnist.training.photo_batches import AnyOfCrossentropy
from fmnist.training.progress import watch

if TYPE_CHECKING:
    from fmnist.training.compiled_epoch import CompiledEpochs

NUM_WHITENING_IMAGES = 5_000
"""As many as the CIFAR-10 speedrun uses: enough to estimate the covariance of 3x3 patches."""

Callbacks = Sequence[keras.callbacks.Callback]


def train(
    config: Config | str,
    callbacks: Callbacks = (),
    *,
    network: NetworkFunction | str | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: keras.losses.Loss | Callable[..., Any] | str | None = None,
    augment: Augment | None = None,
    dataset: Dataset | None = None,
    folder: str | Path | None = None,
    devices: int = 1,
    verbose: bool | None = None,
) -> Run:
    """Train a network and export it.

    After every epoch the run folder has the weights, a row of `history.csv` and a checkpoint, from which `resume`
    continues an interrupted run. `curves.png` is drawn every ten seconds and when training ends. Augmentation and
    dropout of an epoch follow from seed and epoch. The selection and order of its images also follow from the losses
    of earlier epochs.

    Args:
        config: what to train, from `Config.from_preset`, or the name of a preset.
        callbacks: further Keras callbacks. If one stops the training, `resume` can continue it. An epoch that is
            stopped half-way counts as completed.
        network: your own network instead of the preset's: a function from the number of classes to a new Keras model
            (Sequential, functional or subclassed) from images (n, 28, 28, 1) float32 in [0, 1] to probabilities. Or its
            name, `module:function` or `file.py:function`, which is imported. Its random numbers, also those of its
            initial weights, follow from the seed if no other thread draws from Python's generator meanwhile.
        optimizer: your own Keras optimizer. It keeps its learning rate or schedule.
        loss: your own loss, of one-hot labels and probabilities, instead of the cross-entropy with label smoothing.
        augment: your own augmentation instead of the preset's flips, shifts and CutMix: a function of images (n, 28,
            28) uint8, one-hot labels (n, classes) float32 and a NumPy generator that follows from seed and epoch. It
            returns images of the same shape, or images and labels. `flip` and `shift` of the configuration still say
            which views the predictions are averaged over.
        dataset: the data, if it is loaded already or in memory. None loads what `config.data` names.
        folder: the run folder. None creates a new one under `runs/`.
        devices: how many GPUs of this machine each batch is divided among, under JAX.
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
    parts = CustomParts.check(network, optimizer, loss, augment)
    config = parts.applied_to(config)
    check_callbacks(config, callbacks)
    check_is_dataset(dataset)
    folder = as_path(folder, "folder") if folder else None
    dataset = dataset or load(config.data)
    started = time.perf_counter()
    check_trainable(dataset)
    warn_of_imbalance(dataset, config)
    warn_of_learning_rate(config)
    config = replace(config.resolve(dataset.is_fashion_mnist, is_on_gpu()), data=dataset.path)
    photos = photos_to_train_on(config, dataset)
    split = split_dataset(dataset, config.seed, config.full)
    is_there = folder is not None and folder.exists()
    folder = folder or make_run_folder(config.preset)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder) as lock:
        run = create_run(config, folder, parts.record)
        try:
            with watch(verbose, callbacks) as watching:
                trained = fit(run, dataset, split, photos, parts, [*watching, *callbacks], devices)
        except Exception as error:
            if not isinstance(error, OSError):  # of the disk: training again into this folder can work
                remove_without_epochs(run, keep_folder=is_there)
            raise
        seconds = {"train_seconds": time.perf_counter() - started, **trained.seconds}
        trained = dataclasses.replace(trained, seconds=seconds)

        export(run, lock, trained, dataset, split, parts)
    return run


def resume(
    run: Run | str | Path,
    callbacks: Callbacks = (),
    *,
    network: NetworkFunction | str | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: keras.losses.Loss | Callable[..., Any] | str | None = None,
    augment: Augment | None = None,
    dataset: Dataset | None = None,
    devices: int = 1,
    verbose: bool | None = None,
) -> Run:
    """Continue an interrupted run after its last completed epoch, whatever interrupted it.

    On TensorFlow's CPU backend, with the same machine, versions and number of threads, weights and history are bit for
    bit those of an uninterrupted run. Changes since the interruption are logged as a warning.

    Args:
        run: the run, or its folder. A finished run is returned as it is.
        callbacks: as for `train`.
        network: the one that the run was started with; its code is not in the run folder. Likewise the next three.
        optimizer: as for `train`.
        loss: as for `train`.
        augment: as for `train`.
        dataset: the run's data, if it is loaded already.
        devices: as for `train`. Another number gives slightly different sums.
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
    parts = CustomParts.check(network, optimizer, loss, augment)
    parts.compare(run.custom, run.folder, needed=("network", "optimizer", "loss", "augment"))
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
                trained = fit(run, dataset, split, photos, parts, [*watching, *callbacks], devices)
        else:  # all epochs are done, only the export is missing
            trained = read_trained(run, dataset)
        export(run, lock, trained, dataset, split, parts)
    return run


def photos_to_train_on(config: Config, dataset: Dataset) -> PhotoSet | None:
    """Load the photos of a configuration. Returns None if it has none."""
    return load_photos(config.photos, len(dataset.class_names)) if config.photo_fraction else None


@keras_defaults()
def fit(
    run: Run,
    dataset: Dataset,
    split: Split,
    photos: PhotoSet | None,
    parts: CustomParts,
    callbacks: Callbacks = (),
    devices: int = 1,
) -> TrainedNetwork:
    """Train the network of a run from its newest checkpoint, or from the beginning, to its last epoch.

    Args:
        run: a new or interrupted run, its folder locked by this process.
        dataset: the run's data.
        split: the same, split as the run does.
        photos: of `photos_to_train_on`.
        parts: what is the user's own.
        callbacks: as for `train`.
        devices: as for `train`.
    """
    cache_programs()
    config = run.config
    num_outputs = config.num_outputs(len(dataset.class_names))
    precision = choose_precision(config.precision)
    data = (dataset.sha256, dataset.class_names, photos.sha256 if photos else None)
    environment = describe_environment(keras.backend.backend(), precision, *data, devices, gpu_name())
    record_environment(run, dataset, environment)
    remove_exports(run)

    network = build_network(config, num_outputs, precision, parts.network)
    if parts.network:
        check_custom_export(parts, config, dataset)
    # A split is shuffled. Without a split, the images are in the order of the file, which may be sorted by class.
    num_images = len(split.train_images)
    chosen = evenly_spaced(num_images, NUM_WHITENING_IMAGES) if config.full else slice(NUM_WHITENING_IMAGES)
    fit_whitening(network, split.train_images[chosen])
    labels = one_hot(split.train_labels, num_outputs)
    sampler = EpochSampler(split.train_images, labels, dataset.class_names, config, photos, parts.augment)
    cross_entropy = AnyOfCrossentropy if photos else keras.losses.CategoricalCrossentropy
    network.compile(
        optimizer=make_optimizer(config, len(sampler.batches) * config.epochs, parts),
        loss=parts.loss or cross_entropy(label_smoothing=config.label_smoothing),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.Precision(name="precision"),
            keras.metrics.Recall(name="recall"),
            sampler.loss_recorder,
        ],
    )
    # All variables are there now. TensorFlow would trace a step twice if the first time created some.
    network.optimizer.build(network.trainable_variables)
    run_checkpoint = RunCheckpoint(run, sampler)
    batches, validation = sampler.batches, None if config.full else validation_batches(split, num_outputs)
    programs = compile_epochs(network, sampler, validation, devices)
    feed = programs.one_step if programs else prefetch
    completed = run_checkpoint.restore(network)
    try:
        network.fit(
            feed(batches),
            initial_epoch=completed,
            epochs=config.epochs,
            shuffle=False,  # `EpochSampler` has shuffled the images
            validation_data=feed(validation) if validation else None,
            callbacks=[sampler, run_checkpoint, *callbacks],
            verbose=0,
        )
    finally:
        run_checkpoint.draw()
    if programs:
        programs.release()
    checkpoint = run_checkpoint.latest
    assert checkpoint  # Keras completes at least one epoch, also if a callback stops the training
    # If a callback has stopped the training early, the checkpoints are still needed.
    if len(checkpoint.history) == config.epochs:
        remove_checkpoints(run)
    seconds = programs.seconds if programs and not completed else {}
    return TrainedNetwork(checkpoint.weights, checkpoint.history, precision, seconds)


def compile_epochs(
    network: keras.Model, sampler: EpochSampler, validation: Batches | None, devices: int
) -> "CompiledEpochs | None":
    """Let a compiled program run each epoch under JAX on GPUs. Returns None where `fit` runs it step by step.

    On a CPU, XLA computes the gradients of convolutions 30 times slower in the loop of a program than outside of it
    (JAX 0.10 to 0.12, docs/log.md).

    Raises:
        FmnistError: if the devices are not there, or this backend cannot use several.
    """
    if keras.backend.backend() == "jax" and network.jit_compile and (is_on_gpu() or devices > 1):
        from fmnist.training.compiled_epoch import CompiledEpochs

        return CompiledEpochs(network, sampler, validation, devices)
    if devices > 1:
        raise FmnistError(
            f"devices is {devices}; expected 1: several need KERAS_BACKEND=jax and a network that it can compile"
        )
    return None
