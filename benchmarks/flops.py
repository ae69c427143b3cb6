"""Count the floating-point operations (FLOPs) of a training run, and measure the machine's highest rate of them.

A multiplication and an addition count as two.
"""

import math
import time

import keras
import numpy as np

from fmnist.runs.run import Run

SIZES = (1024, 2048, 4096)
"""Rows and columns of the multiplied matrices: which size is the quickest depends on the machine."""
REPEATS = 5


def peak_flops_per_second(precision: str) -> float:
    """Measure the highest rate of products of square matrices, over all sizes and repeats.

    Args:
        precision: `float32` or `bfloat16`.

    Returns:
        FLOPs per second.
    """
    return max(matmul_flops_per_second(size, precision) for size in SIZES)


def matmul_flops_per_second(size: int, precision: str) -> float:
    """Measure the highest rate of products of matrices of one size."""
    matrix = keras.ops.cast(np.random.default_rng(0).random((size, size), np.float32), precision)
    seconds = []
    for _ in range(1 + REPEATS):  # the first product warms up
        started = time.perf_counter()
        product = keras.ops.matmul(matrix, matrix)
        float(keras.ops.cast(product[0, 0], "float32"))  # waits for the product
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:])


def training_flops(run: Run, network: keras.Sequential, num_images: int) -> float:
    """Count the FLOPs of convolutions and dense layers in the training of a run. Other layers are left out.

    Counted are the forward pass, the gradients of the trainable kernels, and the gradients of the inputs of all
    trainable layers but the first, which has no trainable layer before it.

    Args:
        run: the run.
        network: its network.
        num_images: number of its training images.
    """
    config = run.config
    multiply_adds = [(_multiply_adds(layer), layer.trainable) for layer in network.layers if hasattr(layer, "kernel")]
    forward = sum(count for count, _ in multiply_adds)
    trainable = [count for count, is_trainable in multiply_adds if is_trainable]
    num_examples = math.ceil(config.hard_example_fraction * num_images) * config.epochs
    return 2.0 * num_examples * (forward + sum(trainable) + sum(trainable[1:]))


def _multiply_adds(layer: keras.Layer) -> int:
    positions = layer.output.shape[1:-1]
    return math.prod(layer.kernel.shape) * math.prod(positions)
