"""How much arithmetic a training run is, and how much the machine could do: for the share of its peak."""

import math
import time

import keras
import numpy as np

from fmnist.runs import run as runs

SIZES = (1024, 2048, 4096)
REPEATS = 5


def matrix_product_peak(precision: str) -> float:
    """Measure the best that the machine does on products of square matrices.

    Args:
        precision: `float32` or `bfloat16`.

    Returns:
        Operations a second, a multiplication and an addition counting as two; the best over sizes and repeats.
    """
    return max(product_rate(size, precision) for size in SIZES)


def product_rate(size: int, precision: str) -> float:
    """Time products of square matrices; the best, in operations a second."""
    matrix = keras.ops.cast(np.random.default_rng(0).random((size, size), np.float32), precision)
    seconds = []
    for _ in range(1 + REPEATS):  # the first one warms up
        started = time.perf_counter()
        product = keras.ops.matmul(matrix, matrix)
        float(keras.ops.cast(product[0, 0], "float32"))  # waits for the product
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:])


def training_operations(run: runs.Run, network: keras.Sequential, num_images: int) -> float:
    """Count the operations of convolutions and dense layers in the training of a run.

    Forward, gradients of the kernels that learn, and gradients of what goes into them (but for the first that learns,
    below which nothing does). All else is left out.

    Args:
        run: a run on all training images.
        network: its network.
        num_images: in its training part.
    """
    config = run.config
    products = [(_multiply_adds(layer), layer.trainable) for layer in network.layers if hasattr(layer, "kernel")]
    forward = sum(count for count, _ in products)
    learning = [count for count, is_trainable in products if is_trainable]
    num_visited = math.ceil(config.visited * num_images) * config.epochs
    return 2.0 * num_visited * (forward + sum(learning) + sum(learning[1:]))


def _multiply_adds(layer: keras.Layer) -> int:
    places = layer.output.shape[1:-1]
    return math.prod(layer.kernel.shape) * math.prod(places)
