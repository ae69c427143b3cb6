"""The networks: architecture, initial weights, whitening, precision."""

import random

import keras
import numpy as np
import pytest

from fmnist.config import PRESETS, Config
from fmnist.data.dataset import normalize
from fmnist.models import networks
from fmnist.models.networks import build_network, fit_whitening, whitening_network
from fmnist.models.weights import get_weights

PARAMETERS = {"textbook": 34_826, "fast": 247_308, "tiny": 84_956, "best": 1_121_516, "photo": 117_676}


@pytest.mark.parametrize(("preset", "parameters"), PARAMETERS.items())
def test_networks_are_sequential_and_have_a_summary(preset, parameters, capsys):
    network = build_network(PRESETS[preset], 10, "float32")
    assert type(network) is keras.Sequential
    assert network.count_params() == parameters
    network.summary(line_length=80)
    summary = capsys.readouterr().out
    assert all(layer.name in summary for layer in network.layers)


def test_textbook_layers():
    layers = [type(layer).__name__ for layer in networks.textbook(10, random.Random(0)).layers]
    assert layers == ["Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Flatten", "Dropout", "Dense"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_outputs_are_probabilities_and_variables_float32(preset, precision, small):
    network = build_network(PRESETS[preset], 7, precision)
    outputs = network.predict(normalize(small.train_images[:50]), verbose=0)
    assert outputs.shape == (50, 7)
    np.testing.assert_allclose(outputs.astype(np.float32).sum(axis=1), 1, atol=1e-3 if precision == "float32" else 0.02)
    assert all(str(keras.backend.standardize_dtype(variable.dtype)) == "float32" for variable in network.weights)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("preset", PRESETS)
def test_seed_determines_the_initial_weights(preset):
    first, same, other = (
        get_weights(build_network(Config.from_preset(preset, seed=seed), 10, "float32")) for seed in (1, 1, 2)
    )
    assert all((first[name] == same[name]).all() for name in first)
    assert not all((first[name] == other[name]).all() for name in first)


def test_building_restores_the_global_random_generators():
    np.random.seed(3)
    random.seed(3)
    build_network(Config.from_preset("fast", seed=1), 10, "float32")
    assert random.random() == random.Random(3).random()
    assert np.random.random() == np.random.RandomState(3).random()


def test_whitening_decorrelates(small):
    network = whitening_network("fast", 10, random.Random(0))
    fit_whitening(network, small.train_images)
    outputs = keras.ops.convert_to_numpy(network.layers[0](normalize(small.train_images)))
    outputs = outputs.reshape(-1, networks.WHITENING_FILTERS)
    half = networks.WHITENING_FILTERS // 2
    moments = outputs[:, :half].T @ outputs[:, :half] / len(outputs)
    assert np.abs(moments - np.diag(np.diag(moments))).max() < 0.02
    # WHITENING_EPSILON makes the variances smaller than 1, most of all those of the flattest directions.
    assert np.diag(moments).min() > 0.5
    assert np.diag(moments).max() < 1.05
    np.testing.assert_allclose(outputs[:, :half], -outputs[:, half:], atol=1e-5)
    assert not network.layers[0].trainable


def test_whitening_does_not_depend_on_the_order_of_summation(small):
    """Another BLAS or processor sums in another order, and a difference of one bit would change the trained weights."""
    images = small.train_images
    kernels = []
    for order in (slice(None), slice(None, None, -1), np.random.default_rng(0).permutation(len(images))):
        network = whitening_network("fast", 10, random.Random(0))
        fit_whitening(network, images[order])
        kernels.append(keras.ops.convert_to_numpy(network.layers[0].kernel))
    assert (kernels[0] == kernels[1]).all()
    assert (kernels[0] == kernels[2]).all()


def test_whitening_leaves_other_networks_unchanged(small):
    network = networks.textbook(10, random.Random(0))
    before = get_weights(network)
    fit_whitening(network, small.train_images)
    assert all((before[name] == values).all() for name, values in get_weights(network).items())


@pytest.mark.parametrize("shape", [(3, 3, 18, 32), (3, 3, 32, 32), (3, 3, 64, 32)])
def test_dirac_is_the_identity_on_the_first_channels(shape):
    kernel = networks.Dirac(0)(shape)
    image = np.random.default_rng(0).random((1, 5, 5, shape[2]), np.float32)
    outputs = keras.ops.convert_to_numpy(keras.ops.conv(image, kernel, padding="same"))
    shared = min(shape[2:])
    np.testing.assert_allclose(outputs[..., :shared], image[..., :shared], atol=1e-6)
    assert kernel.dtype == np.float32
    if shape[3] > shared:
        bound = 1 / np.sqrt(np.prod(shape[:3]))
        assert 0.9 * bound < np.abs(kernel[..., shared:]).max() <= bound


def test_initial_weights_ignore_other_users_of_the_global_generators(monkeypatch):
    """Another thread may draw from them at any time."""
    expected = get_weights(build_network(PRESETS["tiny"], 10, "float32"))
    real = networks.Dirac.__call__

    def disturbed(*arguments, **options):
        random.random()
        np.random.rand()
        return real(*arguments, **options)

    monkeypatch.setattr(networks.Dirac, "__call__", disturbed)
    random.seed(1)
    before = random.getstate()
    found = get_weights(build_network(PRESETS["textbook"], 10, "float32"))
    assert random.getstate() == before
    random.seed(2)
    again = get_weights(build_network(PRESETS["textbook"], 10, "float32"))
    assert all((found[name] == again[name]).all() for name in found)
    found = get_weights(build_network(PRESETS["tiny"], 10, "float32"))
    assert all((found[name] == expected[name]).all() for name in expected)
