"""Weights and optimizer states: written, read back, and refused if they do not fit."""

import random

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from fmnist.config import PRESETS
from fmnist.data.dataset import normalize
from fmnist.errors import FmnistError
from fmnist.models.muon import Muon
from fmnist.models.networks import textbook, whitening_network
from fmnist.models.weights import (
    get_optimizer_state,
    get_weights,
    load_model,
    read_weights,
    set_optimizer_state,
    set_weights,
)
from fmnist.runs.run import create_run, open_pretrained


@pytest.fixture
def new_run(tmp_path):
    """A run without weights."""
    return create_run(PRESETS["textbook"], tmp_path / "new")


def test_load_model_returns_the_network_with_the_weights_of_the_file(small_run, small):
    network = load_model(small_run)
    stored = read_weights(small_run)
    assert get_weights(network).keys() == stored.keys()
    assert all((values == stored[name]).all() for name, values in get_weights(network).items())
    from_folder = load_model(small_run.folder)
    images = normalize(small.test_images[:20])
    assert (network.predict(images, verbose=0) == from_folder.predict(images, verbose=0)).all()


def test_run_without_manifest_has_readable_weights(new_run):
    weights = get_weights(textbook(10, random.Random(0)))
    save_file(weights, new_run.weights_path)
    assert all((values == weights[name]).all() for name, values in read_weights(new_run).items())
    assert load_model(new_run).count_params() == 34_826


def test_run_without_weights_is_refused(new_run):
    with pytest.raises(FmnistError, match=r"has no weights: .*`fmnist train --resume .*new` continues it"):
        load_model(new_run)


@pytest.mark.parametrize("removed", [("manifest.json",), ("history.csv",), ()])
def test_missing_weights_of_a_trained_run_are_named(copied_run, removed):
    for name in ("weights.safetensors", *removed):
        (copied_run.folder / name).unlink()
    with pytest.raises(
        FmnistError, match=r"weights.safetensors is missing, the weights of a run that has been trained"
    ):
        load_model(copied_run)


def test_pretrained_model_has_no_weights():
    with pytest.raises(FmnistError, match="without weights; `make pretrained` trains its network"):
        load_model(open_pretrained())


def test_weights_that_do_not_match_the_manifest_are_refused(copied_run):
    save_file(get_weights(whitening_network("fast", 10, random.Random(0))), copied_run.weights_path)
    with pytest.raises(FmnistError, match="damaged or not the file that its manifest names"):
        read_weights(copied_run)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"head/bias": np.zeros(10)}, "holds other numbers than float32"),
        ({"conv1/bias": np.zeros(10, np.float32)}, "holds no weights of this program"),
        ({"head/bias": np.zeros(0, np.float32)}, "holds no weights of this program"),
        ({"head/bias": np.zeros(100_000, np.float32)}, "holds no weights of this program"),
    ],
)
def test_files_of_other_programs_are_refused(weights, message, new_run):
    save_file(weights, new_run.weights_path)
    with pytest.raises(FmnistError, match=message):
        read_weights(new_run)


def test_damaged_file_is_refused(new_run):
    new_run.weights_path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(FmnistError, match=r"weights.safetensors is damaged"):
        read_weights(new_run)


def test_weights_of_another_network_are_refused(tmp_path):
    weights = get_weights(textbook(10, random.Random(0)))
    with pytest.raises(FmnistError, match="does not fit the network fast"):
        set_weights(whitening_network("fast", 10, random.Random(0)), weights, tmp_path)
    with pytest.raises(FmnistError, match=r"head/kernel has shape \(1600, 10\)"):
        set_weights(textbook(9, random.Random(0)), weights, tmp_path)


def test_optimizer_continues_from_its_state():
    gradients = np.random.default_rng(0).normal(size=(4, 2, 6)).astype(np.float32)

    def start():
        variables = [keras.Variable(np.ones(6, np.float32), name=name) for name in ("first", "second")]
        optimizer = Muon(keras.optimizers.schedules.PolynomialDecay(0.1, 4), momentum=0.8, adam_lr_ratio=0.5)
        optimizer.build(variables)
        return optimizer, variables

    optimizer, variables = start()
    for gradient in gradients[:2]:
        optimizer.apply(list(gradient), variables)
    resumed, resumed_variables = start()
    set_optimizer_state(resumed, get_optimizer_state(optimizer))
    for new, old in zip(resumed_variables, variables, strict=True):
        new.assign(old)
    for gradient in gradients[2:]:
        optimizer.apply(list(gradient), variables)
        resumed.apply(list(gradient), resumed_variables)
    for new, old in zip(resumed_variables, variables, strict=True):
        assert (keras.ops.convert_to_numpy(new) == keras.ops.convert_to_numpy(old)).all()


def test_state_of_another_optimizer_is_refused():
    variable = keras.Variable(np.ones(6, np.float32))
    muon, sgd = Muon(0.1, momentum=0.8, adam_lr_ratio=0.5), keras.optimizers.SGD(0.1)
    for optimizer in (muon, sgd):
        optimizer.build([variable])
    with pytest.raises(FmnistError, match="does not fit the optimizer sgd"):
        set_optimizer_state(sgd, get_optimizer_state(muon))
