"""The networks, as `keras.Sequential`.

Each takes images of shape (n, 28, 28, 1), float32 in [0, 1], and returns probabilities of shape (n, num_classes).
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers

from fmnist.config import IMAGE_SIZE, Config
from fmnist.errors import FmnistError
from fmnist.models.layers import FusedBatchNormalization, MatmulGradientConv2D, SummedConv2D, WindowMaxPooling2D
from fmnist.models.user_functions import NetworkFunction, build_custom

WHITENING_SIZE = 3
"""Height and width of the patches that are whitened, in pixels."""
WHITENING_FILTERS = 2 * WHITENING_SIZE**2
"""Each eigenvector of the patches, and its negative."""
WHITENING_CHUNK = 100
"""Images whose patches are in memory at once: about as many as the processor's cache holds."""
WHITENING_EPSILON = 5e-4
"""Limits the amplification of directions with little variance, which are mostly noise. The value is the speedrun's."""
LOGITS_SCALE = 0.25
"""Slows the learning of the head, and makes the first predictions less confident."""

POOL = "pool"
LAYOUTS: dict[str, tuple[int | str, ...]] = {
    "fast": (POOL, 32, 64, POOL, 128, POOL, 128),
    "tiny": (POOL, 32, 48, POOL, 64, 64),
    "photo": (POOL, 32, 64, POOL, 64, 96),
    "best": (64, POOL, 128, 128, POOL, 256, 256),
}
"""The layers after the whitening layer: the number of filters of each convolution, and the poolings between them."""


def textbook(num_classes: int, rng: random.Random) -> keras.Sequential:
    """Build the convolutional network of many tutorials, with 34,826 parameters for ten classes.

    Args:
        num_classes: number of probabilities.
        rng: draws the seeds of initial weights and dropout.
    """
    return keras.Sequential(
        [
            keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1)),
            layers.Conv2D(32, 3, activation="relu", kernel_initializer=glorot(rng), name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(64, 3, activation="relu", kernel_initializer=glorot(rng), name="conv2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dropout(0.5, seed=draw_seed(rng), name="dropout"),
            layers.Dense(num_classes, activation="softmax", kernel_initializer=glorot(rng), name="head"),
        ],
        name="textbook",
    )


def whitening_network(layout: str, num_classes: int, rng: random.Random) -> keras.Sequential:
    """Build a network of a frozen whitening layer and normalized convolutions.

    The design is that of the CIFAR-10 speedruns (Jordan 2024, arXiv 2404.00498). The layouts are our own.

    Args:
        layout: a key of `LAYOUTS`.
        num_classes: number of probabilities.
        rng: draws the seeds of initial weights: that of the whitening layer, of the head, then of each convolution.
    """
    whitening_initializer, head_initializer = glorot(rng), glorot(rng)
    is_jax = keras.backend.backend() == "jax"
    whitening = (SummedConv2D if is_jax else layers.Conv2D)(
        WHITENING_FILTERS,
        WHITENING_SIZE,
        use_bias=False,
        trainable=False,
        kernel_initializer=whitening_initializer,
        name="whitening",
    )
    pooling = WindowMaxPooling2D if is_jax else layers.MaxPooling2D
    stack: list[keras.Layer] = [keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1)), whitening]
    # A pooling follows the convolution directly, before normalization and ReLU, which then have less to compute.
    after_pooling: list[keras.Layer] = [layers.ReLU(name="whitening_relu")]
    number = 0
    for item in LAYOUTS[layout]:
        if item == POOL:
            stack.append(pooling(2, name=f"pool{number}"))
            continue
        number += 1
        convolution = MatmulGradientConv2D(
            item, 3, padding="same", use_bias=False, kernel_initializer=Dirac(draw_seed(rng)), name=f"conv{number}"
        )
        stack += [*after_pooling, convolution]
        after_pooling = [FusedBatchNormalization(name=f"norm{number}"), layers.ReLU(name=f"relu{number}")]
    stack += [
        *after_pooling,
        layers.GlobalMaxPooling2D(name="global_pool"),
        layers.Dense(num_classes, kernel_initializer=head_initializer, name="head"),
        layers.Rescaling(LOGITS_SCALE, name="logits"),
        # float32 under any policy, for the loss and the metrics
        layers.Softmax(dtype="float32", name="softmax"),
    ]
    return keras.Sequential(stack, name=layout)


def draw_seed(rng: random.Random) -> int:
    """Draw a seed as Keras does for itself, but from a private generator."""
    return rng.randint(1, 10**9)


def glorot(rng: random.Random) -> keras.initializers.Initializer:
    """Return Keras' default initializer of kernels with a seed of its own."""
    return keras.initializers.GlorotUniform(seed=draw_seed(rng))


@keras.saving.register_keras_serializable("fmnist")
class Dirac(keras.initializers.Initializer):
    """Initialize a convolution kernel to the identity on the first channels and to random values on the others.

    The random values are uniform within 1 / sqrt(height * width * inputs), PyTorch's default. Source: the CIFAR-10
    speedruns.
    """

    def __init__(self, seed: int):
        """Initialize the initializer.

        Args:
            seed: of the random values.
        """
        self.seed = seed

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"seed": self.seed}

    def __call__(self, shape: tuple[int, int, int, int], dtype: str | None = None) -> np.ndarray:
        """Return the kernel.

        Args:
            shape: (height, width, inputs, outputs), height and width odd.
            dtype: of the kernel; None is float32.

        Returns:
            The kernel. It is the identity on min(inputs, outputs) channels.
        """
        uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=self.seed)
        kernel = np.array(keras.ops.convert_to_numpy(uniform(shape, "float32")))
        height, width, num_inputs, num_outputs = shape
        for channel in range(min(num_inputs, num_outputs)):
            kernel[..., channel] = 0
            kernel[height // 2, width // 2, channel, channel] = 1
        return kernel.astype(dtype or "float32")


NETWORKS: dict[str, Callable[[int, random.Random], keras.Sequential]] = {
    "textbook": textbook,
    **{layout: partial(whitening_network, layout) for layout in LAYOUTS},
}
"""Functions from the number of classes and a generator to the network, by the name in `Config.network`."""


def build_network(
    config: Config, num_classes: int, precision: str, custom: NetworkFunction | None = None
) -> keras.Model:
    """Build the network of a configuration. Its initial weights depend on the seed alone.

    Keras draws seeds from Python's global generator, which other threads may use. So every seed is drawn here.

    Args:
        config: the configuration; its fields `network` and `seed` are used.
        num_classes: number of probabilities.
        precision: "float32", or "bfloat16" for computing in bfloat16 with variables in float32.
        custom: the user's function, if the configuration has a network of its own.

    Returns:
        The network, built but not compiled. A whitening layer is random until `fit_whitening`.

    Raises:
        FmnistError: if the user's function is missing, or does not return a network from images to probabilities.
    """
    with keras_defaults("mixed_bfloat16" if precision == "bfloat16" else "float32"):
        if config.network == "custom":
            network = build_custom(custom, num_classes, config.seed)
            if network.name in NETWORKS:  # by their names, the variables of these are found in the weights file
                raise FmnistError(
                    f"the network has the name {network.name!r}, which is a preset's; give it another: "
                    "keras.Sequential([...], name=...)"
                )
            return network
        return NETWORKS[config.network](num_classes, random.Random(config.seed))


@contextmanager
def keras_defaults(dtype_policy: str | None = None) -> Iterator[None]:
    """Use float32 and channels last, whatever the user's Keras settings (`keras.json`) are. Also a decorator.

    Args:
        dtype_policy: of layers that are created meanwhile; None keeps the current one.
    """
    before = keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    if dtype_policy:
        keras.config.set_dtype_policy(dtype_policy)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_image_data_format(before[1])
        keras.config.set_dtype_policy(before[2])


def fit_whitening(network: keras.Model, images: np.ndarray) -> None:
    """Set the whitening layer so that its outputs are uncorrelated and have the same variance.

    Source: Page 2019, "How to train your ResNet"; with both signs by Jordan 2024, arXiv 2404.00498.

    Args:
        network: the network. One without a whitening layer is left unchanged.
        images: (n, 28, 28) uint8, some thousands.
    """
    if network.name not in LAYOUTS:
        return
    size = WHITENING_SIZE
    # Sums of integers below 2**53 are exact in float64, so this one is the same with every BLAS and for every order
    # of the images. Here a rounding difference would lead to different weights at the end of training.
    products, num_patches = np.zeros((size**2, size**2)), 0
    for start in range(0, len(images), WHITENING_CHUNK):
        chunk = images[start : start + WHITENING_CHUNK].astype(np.float64)
        patches = np.lib.stride_tricks.sliding_window_view(chunk, (size, size), axis=(1, 2)).reshape(-1, size**2)
        products += patches.T @ patches
        num_patches += len(patches)
    eigenvalues, eigenvectors = np.linalg.eigh(products / (num_patches * 255**2))
    filters = eigenvectors / np.sqrt(eigenvalues + WHITENING_EPSILON)
    kernel = np.concatenate([filters, -filters], axis=1).reshape(size, size, 1, WHITENING_FILTERS)
    network.layers[0].kernel.assign(kernel.astype(np.float32))
