"""`model.keras`: the network in Keras' own format, with layers of Keras alone."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from fmnist.config import IMAGE_SIZE
from fmnist.errors import FmnistError
from fmnist.files import lock_folder, write_atomic
from fmnist.models.layers import EPSILON, FusedBatchNormalization
from fmnist.models.user_functions import NetworkFunction
from fmnist.models.weights import load_model
from fmnist.runs.run import Run
from fmnist.runs.schemas import KERAS_FILE

NUM_CHECKED_IMAGES = 100
MAX_DIFFERENCE = 1e-5
"""Largest difference allowed between two probabilities; another order of operations changes them by about 1e-7."""


def export_keras(run: Run, network: NetworkFunction | str | None = None) -> None:
    """Write `model.keras` of a run, which `keras.models.load_model` opens without `fmnist`.

    The network takes (n, 28, 28, 1) float32 from 0 to 1, a single view, and returns probabilities without the
    temperature of the complete graph. A network of the user's own is written as it is, and Keras needs its classes to
    open it. A network that is trained on photos has a last probability for none of the
    classes.

    Args:
        run: a run with weights. Its data is not needed.
        network: for a run with a network of the user's own: the function that builds it, or its name.

    Raises:
        FmnistError: if the run has no weights, another process uses the folder, or the networks disagree.
    """
    with lock_folder(run.folder):
        loaded = load_model(run, network)
        stock = loaded if run.config.network == "custom" else with_stock_layers(loaded)
        images = np.random.default_rng(0).random((NUM_CHECKED_IMAGES, IMAGE_SIZE, IMAGE_SIZE, 1), np.float32)
        difference = np.abs(stock.predict(images, verbose=0) - loaded.predict(images, verbose=0)).max()
        if not difference <= MAX_DIFFERENCE:
            raise FmnistError(
                f"the network with layers of Keras alone differs by {difference:.1e}; expected at most "
                f"{MAX_DIFFERENCE:.0e}. The weights are intact; please report this as a bug"
            )
        with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
            path = Path(scratch) / KERAS_FILE
            stock.save(path)
            write_atomic(run.folder / KERAS_FILE, path.read_bytes())


def with_stock_layers(network: keras.Sequential) -> keras.Sequential:
    """Return a copy of a network that has layers and initializers of Keras alone."""
    copy = keras.Sequential(
        [keras.Input(network.input_shape[1:]), *map(_stock_layer, network.layers)], name=network.name
    )
    for layer, copied in zip(network.layers, copy.layers, strict=True):
        copied.set_weights(layer.get_weights())
    return copy


def _stock_layer(layer: keras.Layer) -> keras.Layer:
    if isinstance(layer, FusedBatchNormalization):
        return keras.layers.BatchNormalization(
            momentum=layer.momentum, epsilon=EPSILON, scale=False, name=layer.name, dtype=layer.dtype_policy
        )
    config = layer.get_config()
    if "kernel_initializer" in config:
        config["kernel_initializer"] = "glorot_uniform"
    # Our other layers change how Keras' own compute, and neither their results nor their configuration.
    stock = next(each for each in type(layer).__mro__ if each.__module__.split(".")[0] == "keras")
    return stock(**config)
