"""The network in Keras' formats: stock layers for everybody, registered ones for those who import fmnist."""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import fmnist
from fmnist.data.dataset import normalize
from fmnist.export.keras_file import export_keras, with_stock_layers
from fmnist.models.custom import CustomParts
from fmnist.models.layers import FusedBatchNormalization, MatmulGradientConv2D, SummedConv2D, WindowMaxPooling2D
from fmnist.training.optimizers import make_optimizer


def test_exported_network_needs_keras_only(copied_run, small):
    export_keras(copied_run)
    path = copied_run.folder / "model.keras"
    with zipfile.ZipFile(path) as archive:
        assert b"fmnist" not in archive.read("config.json").replace(b'"name": "fast"', b"")
    network = keras.models.load_model(path, custom_objects={})
    assert {type(layer).__module__.split(".")[0] for layer in network.layers} == {"keras"}
    images = normalize(small.test_images)
    expected = fmnist.load_model(copied_run).predict(images, verbose=0)
    np.testing.assert_allclose(network.predict(images, verbose=0), expected, atol=1e-6)
    assert network.layers[0].trainable is False


def test_every_layer_of_fmnist_has_one_of_keras(small):
    """Those of JAX too, which no network has under TensorFlow."""
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            SummedConv2D(3, 3, use_bias=False),
            WindowMaxPooling2D(2),
            MatmulGradientConv2D(4, 3, padding="same", use_bias=False),
            FusedBatchNormalization(),
            keras.layers.Flatten(),
        ]
    )
    stock = with_stock_layers(network)
    assert {type(layer).__module__.split(".")[0] for layer in stock.layers} == {"keras"}
    images = normalize(small.test_images[:20])
    np.testing.assert_allclose(stock.predict(images, verbose=0), network.predict(images, verbose=0), atol=1e-5)


LOAD_ELSEWHERE = """
import sys, numpy as np
import keras
assert not [name for name in sys.modules if name.startswith("fmnist")]
network = keras.models.load_model(sys.argv[1])
np.save(sys.argv[2], network.predict(np.load(sys.argv[3]), verbose=0))
"""


@pytest.mark.slow
def test_exported_network_is_loaded_by_a_program_without_fmnist(copied_run, small, tmp_path):
    export_keras(copied_run)
    images = normalize(small.test_images[:20])
    np.save(tmp_path / "images.npy", images)
    arguments = [copied_run.folder / "model.keras", tmp_path / "found.npy", tmp_path / "images.npy"]
    subprocess.run([sys.executable, "-c", LOAD_ELSEWHERE, *map(str, arguments)], check=True, capture_output=True)
    expected = fmnist.load_model(copied_run).predict(images, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-6)


def test_loaded_network_can_be_saved_cloned_and_rebuilt(small_run, small, tmp_path):
    network, images = fmnist.load_model(small_run), normalize(small.test_images[:20])
    expected = network.predict(images, verbose=0)
    network.save(tmp_path / "network.keras")
    saved = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(saved.predict(images, verbose=0), expected)
    for copy in (keras.models.clone_model(network), keras.Sequential.from_config(network.get_config())):
        copy.set_weights(network.get_weights())
        np.testing.assert_array_equal(copy.predict(images, verbose=0), expected)
        (fused, *_) = [layer for layer in copy.layers if isinstance(layer, FusedBatchNormalization)]
        assert fused.momentum == 0.6


def test_network_and_optimizer_are_saved_by_model_checkpoint(small_run, small, tmp_path):
    network = fmnist.load_model(small_run)
    network.compile(make_optimizer(small_run.config, 10, CustomParts()), loss="categorical_crossentropy")
    labels = keras.utils.to_categorical(small.train_labels[:64], 10)
    path = tmp_path / "best.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path, verbose=0)
    network.fit(normalize(small.train_images[:64]), labels, batch_size=32, verbose=0, callbacks=[checkpoint])
    loaded = keras.models.load_model(path)
    before, after = network.optimizer, loaded.optimizer
    assert after.get_config() == before.get_config()
    for found, expected in zip(after.variables, before.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


LOAD = """
import sys
import {}
import {}
keras.models.load_model(sys.argv[1]); print("loaded")
"""


@pytest.mark.slow
@pytest.mark.parametrize("imports", [("fmnist", "keras"), ("keras", "fmnist")])
def test_a_saved_network_is_loaded_once_fmnist_is_imported(small_run, imports, tmp_path):
    fmnist.load_model(small_run).save(tmp_path / "network.keras")
    command = [sys.executable, "-c", LOAD.format(*imports), str(tmp_path / "network.keras")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "loaded\n", done.stderr[-2000:]
