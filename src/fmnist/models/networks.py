"""The networks, as `keras.Sequential`, and their weights as plain arrays.

Every network takes images of shape (n, 28, 28, 1), float32 in [0, 1], and gives probabilities of shape (n, classes).
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import keras
import numpy as np
from keras import layers

from fmnist import untrusted
from fmnist.config import Config
from fmnist.data import dataset as data
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.models.layers import FusedBatchNormalization
from fmnist.runs import environment
from fmnist.runs import run as runs

WHITENING_SIZE = 3
WHITENING_FILTERS = 2 * WHITENING_SIZE**2
"""Plus and minus each eigenvector of a patch."""
WHITENING_EPSILON = 5e-4
"""Keeps a flat direction, mere noise, from being blown up; the speedrun's constant."""


def textbook(num_classes: int) -> keras.Sequential:
    """Build the convolutional network of a hundred tutorials: 34,826 parameters for ten classes."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(64, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dropout(0.5, name="dropout"),
            layers.Dense(num_classes, activation="softmax", name="head"),
        ],
        name="textbook",
    )


POOL = "pool"
LAYOUTS: dict[str, tuple[int | str, ...]] = {
    "whitened": (POOL, 32, 64, POOL, 128, POOL, 128),
    "whitened_large": (64, POOL, 128, 128, POOL, 256, 256),
    "whitened_medium": (POOL, 32, 64, POOL, 64, 96),
    "whitened_small": (POOL, 32, 48, POOL, 64, 64),
    "whitened_wide": (128, POOL, 256, 256, 256, POOL, 512, 512, 512),
}
"""What follows the whitening stem: the widths of the convolutions, and where they are pooled."""


def whitened(layout: str, num_classes: int) -> keras.Sequential:
    """Build a network with a frozen whitening stem and a stack of convolutions.

    The idea is that of the CIFAR-10 speedruns (Jordan 2024, arXiv 2404.00498); the layouts are our own.

    Args:
        layout: a key of `LAYOUTS`.
        num_classes: how many probabilities it gives.
    """
    stack: list[keras.Layer] = [
        keras.Input((28, 28, 1)),
        layers.Conv2D(WHITENING_FILTERS, WHITENING_SIZE, use_bias=False, trainable=False, name="whitening"),
    ]
    closing: list[keras.Layer] = [layers.ReLU(name="whitening_relu")]
    number = 0
    for item in LAYOUTS[layout]:
        if item == POOL:
            stack.append(layers.MaxPooling2D(2, name=f"pool{number}"))
            continue
        number += 1
        convolution = layers.Conv2D(
            item, 3, padding="same", use_bias=False, kernel_initializer=dirac, name=f"conv{number}"
        )
        stack += [*closing, convolution]
        closing = [FusedBatchNormalization(name=f"norm{number}"), layers.ReLU(name=f"relu{number}")]
    stack += [
        *closing,
        layers.GlobalMaxPooling2D(name="global_pool"),
        layers.Dense(num_classes, name="head"),
        layers.Rescaling(LOGITS_SCALE, name="logits"),
        # float32: the probabilities go into the loss and into the metrics
        layers.Softmax(dtype="float32", name="softmax"),
    ]
    return keras.Sequential(stack, name=layout)


LOGITS_SCALE = 0.25
"""Makes the head learn more slowly than Adam's rate alone would, and start unsure."""


def dirac(shape: tuple[int, int, int, int], dtype: str | None = None) -> np.ndarray:
    """Start a convolution as the identity on as many channels as it has; the others start at random.

    Source: the CIFAR-10 speedruns. The random part is uniform within 1 / sqrt(inputs), PyTorch's default.

    Args:
        shape: (height, width, inputs, outputs), height and width odd.
        dtype: of the result.
    """
    uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    kernel = np.array(keras.ops.convert_to_numpy(uniform(shape, "float32")))
    height, width, num_inputs, num_outputs = shape
    for channel in range(min(num_inputs, num_outputs)):
        kernel[..., channel] = 0
        kernel[height // 2, width // 2, channel, channel] = 1
    return kernel.astype(dtype or "float32")


BUILDERS: dict[str, Callable[[int], keras.Sequential]] = {
    "textbook": textbook,
    **{layout: partial(whitened, layout) for layout in LAYOUTS},
}


def build(config: Config, num_classes: int, precision: str) -> keras.Sequential:
    """Build the network of a configuration, with initial weights that follow from its seed.

    Args:
        config: names the network and the seed.
        num_classes: how many probabilities it gives.
        precision: `float32`, or `bfloat16` to compute in it while the variables stay float32.

    Returns:
        The network, built; its whitening stem, if it has one, still waits for `whiten`.
    """
    with _keras_defaults("mixed_bfloat16" if precision == "bfloat16" else "float32"), _seeded(config.seed):
        return BUILDERS[config.network](num_classes)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Keras draws initial weights from the global generators; those of the caller are as before afterwards."""
    before = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextmanager
def _keras_defaults(dtype_policy: str) -> Iterator[None]:
    """Build under this policy, and with channels last whatever the user's own Keras settings say."""
    before = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy(dtype_policy)
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_image_data_format(before[1])


def choose_precision(wanted: str) -> str:
    """Give the precision to train in.

    Args:
        wanted: `auto`, `float32` or `bfloat16`.

    Returns:
        For `auto`, `bfloat16` where what Keras computes on, a GPU or the processor, multiplies in it natively, else
        `float32`.
    """
    if wanted != "auto":
        return wanted
    is_native = _is_on_gpu() or environment.has_native_bfloat16()
    return "bfloat16" if is_native else "float32"


def device_name() -> str:
    """Name what Keras computes on: the GPU, or the processor."""
    if not _is_on_gpu():
        return environment.processor_name()
    import jax

    return str(jax.devices()[0].device_kind)


def _is_on_gpu() -> bool:
    if keras.backend.backend() != "jax":
        return False  # the TensorFlow of this project is the one for processors
    import jax

    return jax.default_backend() == "gpu"


def whiten(network: keras.Sequential, images: np.ndarray) -> None:
    """Set the stem of a `whitened` network so that its outputs are uncorrelated and of equal scale.

    Source: Page 2019, "How to train your ResNet"; the form with both signs is of Jordan 2024, arXiv 2404.00498.

    Args:
        network: what `build` gave; one without a stem is left as it is.
        images: (n, 28, 28) uint8, some thousands.
    """
    if network.layers[0].name != "whitening":
        return
    size = WHITENING_SIZE
    # Sums of whole numbers below 2**53 are exact in float64, in whatever order the BLAS at hand adds them up; a
    # rounding that differed here would grow into another network.
    patches = np.lib.stride_tricks.sliding_window_view(images.astype(np.float64), (size, size), axis=(1, 2))
    patches = patches.reshape(-1, size**2)
    eigenvalues, eigenvectors = np.linalg.eigh(patches.T @ patches / (len(patches) * 255**2))
    filters = eigenvectors / np.sqrt(eigenvalues + WHITENING_EPSILON)
    kernel = np.concatenate([filters, -filters], axis=1).reshape(size, size, 1, WHITENING_FILTERS)
    network.layers[0].kernel.assign(kernel.astype(np.float32))


def get_weights(network: keras.Sequential) -> dict[str, np.ndarray]:
    """Give the weights by name, `layer/variable`, as float32 arrays; random states are not among them."""
    return {
        f"{layer.name}/{variable.name}": keras.ops.convert_to_numpy(variable)
        for layer in network.layers
        for variable in layer.weights
    }


def set_weights(network: keras.Sequential, weights: dict[str, np.ndarray], source: Path) -> None:
    """Put weights into a network of the same architecture.

    Raises:
        FmnistError: if a name or a shape differs; `source` is named in the message.
    """
    variables = {f"{layer.name}/{variable.name}": variable for layer in network.layers for variable in layer.weights}
    if variables.keys() != weights.keys():
        different = ", ".join(sorted(variables.keys() ^ weights.keys()))
        raise FmnistError(f"{source} does not fit the network {network.name}: {different} on one side only")
    for name, variable in variables.items():
        if tuple(variable.shape) != weights[name].shape:
            raise FmnistError(
                f"{source} does not fit the network {network.name}: {name} has shape {weights[name].shape}; "
                f"expected {tuple(variable.shape)}"
            )
        variable.assign(weights[name])


def load_model(run: runs.Run | str | Path) -> keras.Sequential:
    """Load the trained network of a run, to look into it or to train it further.

    The file holds arrays alone: nothing in it can run code.

    Args:
        run: the run, or its folder.

    Returns:
        The `keras.Sequential` in float32, with the weights of the last finished epoch. It takes
        `fmnist.data.normalise(images)` and gives probabilities.

    Raises:
        FmnistError: if the run has no weights, or they are damaged or do not fit.
    """
    run = run if isinstance(run, runs.Run) else runs.open_run(run)
    weights = read_weights(run)
    network = build(run.config, weights["head/bias"].size, "float32")
    set_weights(network, weights, run.weights_path)
    return network


def read_weights(run: runs.Run) -> dict[str, np.ndarray]:
    """Read the weights of a run as arrays by name.

    Raises:
        FmnistError: if there are none yet, or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = run.weights_path
    if not os.path.lexists(path):
        if run.folder.absolute() == runs.PACKAGED_FOLDER:
            raise FmnistError("the model that comes with fmnist is a graph alone; `make pretrained` trains its network")
        raise FmnistError(
            f"run {run.folder} has no weights: it stopped before its first epoch was over; "
            f"`fmnist train --resume {run.folder}` goes on"
        )
    content = untrusted.read(path, untrusted.MAX_MODEL_BYTES, "train again")
    if run.is_finished and idx.sha256(content) != run.manifest()["sha256"]["weights.safetensors"]:
        raise FmnistError(
            f"{path} is damaged or not the file that its manifest names (SHA-256 differs); put that back, or, if you "
            f"changed it yourself, remove manifest.json and `fmnist export {run.folder}`"
        )
    try:
        weights = load(content)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FmnistError(f"{path} is damaged ({error}); train again") from error
    if not all(values.dtype == np.float32 for values in weights.values()):
        raise FmnistError(f"{path} holds other numbers than float32; train again")
    if "head/bias" not in weights or not 1 <= weights["head/bias"].size <= data.MAX_CLASSES:
        raise FmnistError(f"{path} holds no weights of this program's networks; train again")
    return weights
