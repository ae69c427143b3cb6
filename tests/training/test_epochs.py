"""The images of each epoch, and the losses that are recorded of them."""

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import fmnist
from fmnist.data.dataset import normalize, split_dataset
from fmnist.models import networks
from fmnist.training import augment
from fmnist.training.epochs import (
    Batches,
    EpochSampler,
    LossRecorder,
    balanced_class_weights,
    one_hot,
    prefetch,
    validation_batches,
)
from fmnist.training.photo_augment import augment_as_photos


def make_sampler(dataset, config, labels=None):
    """Return a sampler of all training images of a data set, with a network."""
    labels = one_hot(dataset.train_labels, 10) if labels is None else labels
    sampler = EpochSampler(dataset.train_images, labels, dataset.class_names, config)
    sampler.set_model(networks.build_network(config, 10, "float32"))
    return sampler


@pytest.fixture
def sampler(small):
    """A sampler of preset `fast`. The label of each image is its index."""
    config = fmnist.Config.from_preset("fast", batch_size=64)
    return make_sampler(small, config, np.arange(len(small.train_images)))


def sample(sampler, epoch):
    """Return all images and labels of an epoch."""
    sampler.on_epoch_begin(epoch)
    batches = [sampler.batches[index] for index in range(len(sampler.batches))]
    return tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))


def test_one_hot():
    encoded = one_hot(np.array([2, 0], np.uint8), 3)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_first_two_epochs_of_fast_have_every_image_once(sampler):
    first_images, first_labels = sample(sampler, 0)
    sampler.losses[sampler.selected] = 9.0
    _, second_labels = sample(sampler, 1)
    assert first_images.shape == (600, 28, 28, 1)
    assert sorted([*first_labels, *second_labels]) == list(range(1_200))


def test_an_epoch_can_be_repeated(sampler):
    epochs = [sample(sampler, epoch) for epoch in (1, 0, 1)]
    for first, repeated in zip(epochs[0], epochs[2], strict=True):
        assert (first == repeated).all()


def test_images_with_the_highest_losses_are_selected_in_a_new_order(sampler):
    losses = np.random.default_rng(0).permutation(1_200).astype(np.float32)
    sampler.losses[:] = losses
    first, second = (sample(sampler, epoch)[1] for epoch in (2, 3))
    assert set(first) == set(second) == set(np.flatnonzero(losses >= 600))
    assert list(first) != list(second)


def test_dropout_is_reseeded_in_every_epoch(small):
    sampler = make_sampler(small, fmnist.Config.from_preset("textbook", seed=3))
    sampler.on_epoch_begin(5)
    (index,) = (index for index, layer in enumerate(sampler.model.layers) if layer.name == "dropout")
    state = keras.ops.convert_to_numpy(sampler.model.layers[index].seed_generator.state)
    assert (state == augment.dropout_seed(3, 5, index)).all()


def test_cutmix_mixes_the_selected_images(small):
    sampler = make_sampler(small, fmnist.Config.from_preset("best", seed=3, batch_size=64))
    sampler.on_epoch_begin(2)
    is_mixed = sampler.batches.labels.max(axis=1) < 1
    # A tenth of the partners has the same class.
    assert is_mixed.mean() == pytest.approx(sampler.config.cutmix * 0.9, abs=0.1)
    np.testing.assert_allclose(sampler.batches.labels.sum(axis=1), 1, rtol=1e-5)


def test_photo_augmentation_precedes_cutmix(small):
    """It depends on the class of an image, which a mixed image does not have."""
    config = fmnist.Config.from_preset("photo", seed=3, batch_size=64, cutmix=1.0)
    sampler = make_sampler(small, config)
    sampler.on_epoch_begin(2)
    plan = augment.draw_plan(len(sampler.images), sampler.selected, 3, 2, config.flip, config.shift)
    images = augment.apply_plan(sampler.images, plan, config.shift)
    images, labels = augment_as_photos(images, sampler.labels[sampler.selected], small.class_names, 3, 2)
    cutmix = augment.draw_cutmix(len(images), 1.0, 3, 2)
    images, labels = augment.mix_images(images, cutmix), augment.mix_labels(labels, cutmix)
    assert (sampler.batches.images == images).all()
    assert (sampler.batches.labels == labels).all()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("last_batch", [math.inf, 3])
def test_losses_of_the_selected_images_are_stored(full, last_batch, small):
    """Without dropout and at learning rate 0 the network stays the same, so the losses can be computed afterwards.

    With `last_batch` a callback stops the second epoch early. Images after that batch keep an infinite loss.
    """
    config = fmnist.Config.from_preset("textbook", batch_size=64, hard_example_fraction=0.5, full=full)
    network = networks.build_network(config, 10, "float32")
    network.get_layer("dropout").rate = 0.0
    images = split_dataset(small, config.seed, config.full)
    labels = one_hot(images.train_labels, 10)
    sampler = EpochSampler(images.train_images, labels, small.class_names, config)
    network.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy", metrics=[sampler.loss_recorder])

    class StopEarly(keras.callbacks.Callback):
        epoch = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = self.epoch == 1 and batch == last_batch

    network.fit(
        sampler.batches,
        shuffle=False,
        epochs=2,
        callbacks=[sampler, StopEarly()],
        validation_data=None if full else validation_batches(images, 10),
        verbose=0,
    )

    probabilities = network.predict(normalize(images.train_images), verbose=0)
    expected = keras.ops.convert_to_numpy(keras.losses.categorical_crossentropy(labels, probabilities))
    if math.isfinite(last_batch):
        expected[sampler.selected[(last_batch + 1) * config.batch_size :]] = np.inf
    np.testing.assert_allclose(sampler.losses, expected, rtol=1e-4)


@pytest.mark.slow
def test_losses_are_also_stored_on_jax():
    """Run the test above in another process, because a process has one backend."""
    # Keras 3.15 and NumPy 2 disagree about `__array__` on JAX.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    command += [f"{__file__}::{test_losses_of_the_selected_images_are_stored.__name__}"]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_recorded_loss_excludes_the_entropy_of_a_mixed_label():
    recorder = LossRecorder(3)
    labels = np.array([[0.75, 0.25], [0.75, 0.25], [1, 0]], np.float32)
    probabilities = np.array([[0.75, 0.25], [0.5, 0.5], [0.5, 0.5]], np.float32)
    recorder.update_state(labels, probabilities)
    divergence = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    np.testing.assert_allclose(recorder.recorded(), [0, divergence, np.log(2)], atol=1e-6)


def test_recorder_accepts_more_images_than_it_stores():
    recorder = LossRecorder(3)
    probabilities = np.full((5, 2), 0.5, np.float32)
    recorder.update_state(np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0]], probabilities)
    np.testing.assert_allclose(recorder.recorded(), np.log(2), rtol=1e-6)
    assert float(recorder.result()) == pytest.approx(np.log(2))


def test_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 97 + [1] * 3)
    expected = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    np.testing.assert_allclose(balanced_class_weights(one_hot(labels, 2)), expected, rtol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"cutmix": 1.0}, {"photo_augmentation": True}, {"hard_example_fraction": 1.0}])
def test_each_image_is_weighted_by_its_label(small, changes):
    config = fmnist.Config.from_preset("fast", batch_size=64, class_weights=True, **changes)
    sampler = make_sampler(small, config)
    weights = sampler.batches.class_weights = np.arange(1, 11, dtype=np.float32)
    _, labels, image_weights = sample(sampler, 0)
    np.testing.assert_allclose(image_weights, labels @ weights, rtol=1e-5)


def test_without_class_weights_there_are_none(small):
    sampler = make_sampler(small, fmnist.Config.from_preset("fast", batch_size=64))
    assert len(sampler.batches[0]) == 2
    assert len(validation_batches(split_dataset(small, 0), 10)[0]) == 2


@pytest.mark.parametrize("class_weights", [None, np.array([0.5, 1.5], np.float32)])
def test_prefetched_batches_are_those_of_the_epoch(class_weights):
    """The images change between epochs; the last batch is smaller."""
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    batches = Batches(images, one_hot(np.arange(10) % 2, 2), 4, class_weights)
    fed = prefetch(batches)
    assert len(fed) == 3
    assert fed.options().autotune.enabled is False
    for epoch in range(2):
        batches.images = np.roll(images, epoch, axis=0)
        for batch, expected in zip(fed, [batches[index] for index in range(3)], strict=True):
            assert len(batch) == len(expected)
            assert all((array.numpy() == other).all() for array, other in zip(batch, expected, strict=True))


def test_nothing_is_prefetched_on_jax(small, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    batches = validation_batches(split_dataset(small, 0), 10)
    assert prefetch(batches) is batches
