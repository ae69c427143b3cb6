"""Epochs as compiled programs under JAX: the same training as Keras' own `fit`. `test_compiled_epoch.py` runs this."""

import keras
import numpy as np
import pytest

from fmnist.config import Config
from fmnist.data.dataset import split_dataset
from fmnist.errors import FmnistError
from fmnist.models.custom import CustomParts
from fmnist.runs.run import create_run, open_run
from fmnist.training import augment, train
from fmnist.training.augment_on_device import apply_plan
from fmnist.training.compiled_epoch import CompiledEpochs
from fmnist.training.epochs import EpochSampler, one_hot, validation_batches

METRICS = ("loss", "accuracy", "precision", "recall", "cross_entropy")


def build(num_classes):
    """Build a network with what depends on the order of the batches: moving averages and dropout."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(4, 5, strides=3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(num_classes, activation="softmax"),
        ],
        name="small",
    )


def residual(num_classes):
    """Build a functional network with a skip connection."""
    layers = keras.layers
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    x = layers.Add()([x, layers.Conv2D(4, 3, padding="same", activation="relu")(x)])
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(layers.Flatten()(x)), name="residual")


def configure(**changes):
    """Return a configuration with flips, shifts, CutMix, hard examples and a smaller last batch."""
    settings = {"cutmix": 0.5, "flip": True, "shift": 2, "batch_size": 64, "epochs": 2, "precision": "float32"}
    return Config.from_preset("fast", **(settings | changes))


@pytest.mark.parametrize(
    "changes",
    [{}, {"flip": False}, {"shift": 14}, {"cutmix": 1.0}, {"flip": False, "shift": 0, "cutmix": 0.0}],
    ids=str,
)
def test_plans_are_applied_as_by_numpy(small, changes):
    config = configure(**changes)
    indices = np.random.default_rng(0).permutation(len(small.train_images))[:600]
    for epoch in range(3):
        plan = augment.draw_plan(len(small.train_images), indices, 7, epoch, config.flip, config.shift, config.cutmix)
        expected = augment.apply_plan(small.train_images, plan, config.shift)
        found = np.asarray(apply_plan(small.train_images, plan, config.shift))
        assert found.dtype == np.uint8
        assert (found == expected).all()


def train_small(small, config, optimizer, compiled, num_devices=1):
    """Train the small network in one of the two ways. Returns its weights and Keras' history."""
    keras.utils.set_random_seed(3)
    split = split_dataset(small, config.seed, config.full)
    network = build(10)
    sampler = EpochSampler(split.train_images, one_hot(split.train_labels, 10), small.class_names, config)
    metrics = ["accuracy", keras.metrics.Precision(name="precision"), keras.metrics.Recall(name="recall")]
    network.compile(optimizer(), keras.losses.CategoricalCrossentropy(0.1), metrics=[*metrics, sampler.loss_recorder])
    batches, validation = sampler.batches, validation_batches(split, 10)
    if compiled:
        programs = CompiledEpochs(network, sampler, validation, num_devices)
        batches, validation = programs.one_step(batches), programs.one_step(validation)
    history = network.fit(
        batches, epochs=config.epochs, shuffle=False, validation_data=validation, callbacks=[sampler], verbose=0
    )
    return [np.asarray(variable.value) for variable in network.variables], history.history, sampler


@pytest.mark.parametrize(
    ("dtype", "changes"), [("float32", {}), ("float64", {}), ("float64", {"class_weights": True, "batch_size": 60})]
)
def test_compiled_epochs_are_those_of_fit(small, dtype, changes):
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        config = configure(**changes)
        weights, history, sampler = train_small(small, config, keras.optimizers.Adam, compiled=True)
        expected, expected_history, expected_sampler = train_small(small, config, keras.optimizers.Adam, compiled=False)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert set(history) == set(expected_history) == {*METRICS, *(f"val_{name}" for name in METRICS)}
    assert history["loss"][0] == pytest.approx(expected_history["loss"][0], abs=1e-4)
    tolerance = 1e-9 if dtype == "float64" else 5e-3
    for found, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(found, value, atol=tolerance)
    if dtype == "float64":
        for name, values in expected_history.items():
            np.testing.assert_allclose(history[name], values, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(sampler.losses, expected_sampler.losses, atol=1e-6)


def test_two_devices_train_as_one(small):
    one, two = (
        train_small(small, configure(), keras.optimizers.Adam, compiled=True, num_devices=number) for number in (1, 2)
    )
    for found, expected in zip(two[0], one[0], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(two[1]["val_loss"], one[1]["val_loss"], atol=1e-4)


@pytest.mark.parametrize(("devices", "batch_size"), [(3, 64), (2, 63)])
def test_devices_that_do_not_fit_are_refused(small, devices, batch_size):
    with pytest.raises(FmnistError, match=f"devices is {devices}, with 2 of JAX and a batch of {batch_size} images"):
        train_small(small, configure(batch_size=batch_size), keras.optimizers.Adam, True, devices)


class StopAfter(keras.callbacks.Callback):
    """Stop after an epoch, and count what `fit` calls."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.num_batches = epoch, 0

    def on_train_batch_end(self, batch, logs=None):
        self.num_batches += 1
        assert set(METRICS) <= set(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


def brighten(images, labels, rng):
    """Change the brightness of each image at random: an augmentation that is no plan."""
    return np.clip(images.astype(int) + rng.integers(-20, 20, (len(images), 1, 1)), 0, 255).astype(np.uint8), labels


SGD = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 60), momentum=0.9)
SMALL = CustomParts.check(f"{__file__}:build")
TRAININGS = {
    "dropout and Muon": ({}, SMALL),
    "own network, optimizer and augmentation": ({}, CustomParts.check(f"{__file__}:residual", SGD, None, brighten)),
    "images that are uploaded": ({"photo_augmentation": True, "full": True}, SMALL),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_resumed_training_has_the_same_bits(small, tmp_path, monkeypatch, name):
    monkeypatch.setattr(train, "is_on_gpu", lambda: True)
    changes, parts = TRAININGS[name]
    config = parts.applied_to(configure(epochs=4, **changes))
    split = split_dataset(small, config.seed, config.full)
    undisturbed = create_run(config, tmp_path / "undisturbed")
    expected = train.fit(undisturbed, small, split, None, parts)
    assert expected.seconds["compile_seconds"] > 0
    assert expected.seconds["device_seconds"] > 0

    interrupted, stop = create_run(config, tmp_path / "interrupted"), StopAfter(1)
    assert len(train.fit(interrupted, small, split, None, parts, [stop]).history) == 2
    assert stop.num_batches == 2  # an epoch is one step
    resumed = train.fit(open_run(interrupted.folder), small, split, None, parts)
    assert resumed.seconds == {}
    for variable, values in expected.weights.items():
        assert (values == resumed.weights[variable]).all(), variable
    for row, other in zip(expected.history, resumed.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
