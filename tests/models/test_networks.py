"""The networks: their shape, their start, their weights."""

import random
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from fmnist.config import PRESETS, Config
from fmnist.data import dataset as data
from fmnist.errors import FmnistError
from fmnist.models import networks as model
from fmnist.runs import environment
from fmnist.training.train import reseed_dropout

PARAMETERS = {"textbook": 34_826, "fast": 247_308, "tiny": 84_956, "best": 1_121_516, "photo": 117_676}


@pytest.mark.parametrize(("preset", "parameters"), PARAMETERS.items())
def test_networks_are_sequential_and_readable(preset, parameters, capsys):
    network = model.build(PRESETS[preset], 10, "float32")
    assert type(network) is keras.Sequential
    assert network.count_params() == parameters
    network.summary(line_length=80)
    printed = capsys.readouterr().out
    assert all(layer.name in printed for layer in network.layers)


def test_the_textbook_network_is_the_one_of_the_tutorials():
    layers = [type(layer).__name__ for layer in model.textbook(10).layers]
    assert layers == ["Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Flatten", "Dropout", "Dense"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_answers_are_probabilities(preset, precision, small):
    network = model.build(PRESETS[preset], 7, precision)
    answers = network.predict(data.normalise(small.train_images[:50]), verbose=0)
    assert answers.shape == (50, 7)
    np.testing.assert_allclose(answers.astype(np.float32).sum(axis=1), 1, atol=1e-3 if precision == "float32" else 0.02)
    assert all(str(keras.backend.standardize_dtype(variable.dtype)) == "float32" for variable in network.weights)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_seed_decides_the_initial_weights(preset):
    first, again, other = (
        model.get_weights(model.build(Config.from_preset(preset, seed=seed), 10, "float32")) for seed in (1, 1, 2)
    )
    assert all((first[name] == again[name]).all() for name in first)
    assert not all((first[name] == other[name]).all() for name in first)


def test_the_generators_of_the_caller_are_left_alone():
    np.random.seed(3)
    random.seed(3)
    model.build(Config.from_preset("fast", seed=1), 10, "float32")
    assert random.random() == random.Random(3).random()
    assert np.random.random() == np.random.RandomState(3).random()


def test_whitening_decorrelates(small):
    network = model.whitened("whitened", 10)
    model.whiten(network, small.train_images)
    seen = keras.ops.convert_to_numpy(network.layers[0](data.normalise(small.train_images))).reshape(
        -1, model.WHITENING_FILTERS
    )
    half = model.WHITENING_FILTERS // 2
    moments = seen[:, :half].T @ seen[:, :half] / len(seen)
    assert np.abs(moments - np.diag(np.diag(moments))).max() < 0.02
    # The constant under the root damps the flattest directions; none is blown up.
    assert np.diag(moments).min() > 0.5
    assert np.diag(moments).max() < 1.05
    np.testing.assert_allclose(seen[:, :half], -seen[:, half:], atol=1e-5)
    assert not network.layers[0].trainable


def test_whitening_is_the_same_in_whatever_order_it_is_added_up(small):
    """As another BLAS would, or the same one on another processor: one bit here makes another network in the end."""
    images = small.train_images
    kernels = []
    for order in (slice(None), slice(None, None, -1), np.random.default_rng(0).permutation(len(images))):
        network = model.whitened("whitened", 10)
        model.whiten(network, images[order])
        kernels.append(keras.ops.convert_to_numpy(network.layers[0].kernel))
    assert (kernels[0] == kernels[1]).all()
    assert (kernels[0] == kernels[2]).all()


@pytest.mark.parametrize("shape", [(3, 3, 18, 32), (3, 3, 32, 32), (3, 3, 64, 32)])
def test_dirac_starts_as_the_identity_on_the_shared_channels(shape):
    kernel = model.dirac(shape)
    image = np.random.default_rng(0).random((1, 5, 5, shape[2]), np.float32)
    seen = keras.ops.convert_to_numpy(keras.ops.conv(image, kernel, padding="same"))
    shared = min(shape[2:])
    np.testing.assert_allclose(seen[..., :shared], image[..., :shared], atol=1e-6)
    assert kernel.dtype == np.float32
    if shape[3] > shared:
        bound = 1 / np.sqrt(np.prod(shape[:3]))
        assert 0.9 * bound < np.abs(kernel[..., shared:]).max() <= bound


def test_dropout_masks_follow_seed_and_epoch(small):
    network = model.build(PRESETS["textbook"], 10, "float32")
    images = data.normalise(small.train_images[:20])

    def masked(seed, epoch):
        reseed_dropout(network, seed, epoch)
        return keras.ops.convert_to_numpy(network(images, training=True))

    assert (masked(1, 0) == masked(1, 0)).all()
    assert not (masked(1, 0) == masked(1, 1)).all()
    assert not (masked(1, 0) == masked(2, 0)).all()


def test_weights_read_back_the_same(small_run):
    network = model.load_model(small_run)
    written = model.read_weights(small_run)
    assert model.get_weights(network).keys() == written.keys()
    assert all((value == written[name]).all() for name, value in model.get_weights(network).items())


def test_weights_of_another_network_are_refused(tmp_path):
    weights = model.get_weights(model.textbook(10))
    with pytest.raises(FmnistError, match="does not fit the network whitened"):
        model.set_weights(model.whitened("whitened", 10), weights, tmp_path)
    with pytest.raises(FmnistError, match=r"head/kernel has shape \(1600, 10\)"):
        model.set_weights(model.textbook(9), weights, tmp_path)


@pytest.mark.parametrize(
    ("flags", "wanted", "expected"),
    [
        ("fpu avx512_bf16", "auto", "bfloat16"),
        ("fpu amx_bf16", "auto", "bfloat16"),
        ("fpu avx2", "auto", "float32"),
        ("fpu avx512_bf16", "float32", "float32"),
        ("", "bfloat16", "bfloat16"),
    ],
)
def test_precision_follows_the_processor(flags, wanted, expected, monkeypatch):
    monkeypatch.setattr(environment, "cpu_info", lambda: {"flags": flags})
    assert model.choose_precision(wanted) == expected


@pytest.mark.parametrize(("device", "expected"), [("gpu", "bfloat16"), ("cpu", "float32")])
def test_precision_on_jax_follows_its_device(device, expected, monkeypatch):
    monkeypatch.setattr(environment, "cpu_info", lambda: {"flags": "fpu avx2"})
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr("jax.default_backend", lambda: device)
    assert model.choose_precision("auto") == expected


@pytest.mark.parametrize(("device", "expected"), [("gpu", "NVIDIA H100"), ("cpu", "AMD EPYC")])
def test_the_device_is_named(device, expected, monkeypatch):
    monkeypatch.setattr(environment, "cpu_info", lambda: {"model name": "AMD EPYC"})
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr("jax.default_backend", lambda: device)
    monkeypatch.setattr("jax.devices", lambda: [SimpleNamespace(device_kind="NVIDIA H100")])
    assert model.device_name() == expected
