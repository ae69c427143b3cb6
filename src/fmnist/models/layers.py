"""Layers that Keras lacks."""

from functools import reduce
from typing import Any

import keras

ops = keras.ops

EPSILON = 1e-3
"""Added to the variance, as in `keras.layers.BatchNormalization`."""
MATMUL_GRADIENT_SIZE = 6
"""Largest height and width whose kernel gradient matrix products compute faster than oneDNN's convolution."""


@keras.saving.register_keras_serializable("fmnist")
class FusedBatchNormalization(keras.layers.Layer):
    """Batch normalization over the last axis of (n, height, width, channels), with an offset and without a scale.

    On TensorFlow it is one fused operation, which is faster than the several operations of Keras' own layer
    (docs/log.md). A scale would be redundant: the next layer can learn it, because a ReLU passes positive factors on.
    """

    def __init__(self, momentum: float = 0.6, **options: Any):
        """Initialize the layer.

        Args:
            momentum: fraction of the running mean and variance that is kept at each step. The default is low because
                a run has only some hundred steps.
            options: arguments of `keras.layers.Layer`.
        """
        super().__init__(**options)
        self.momentum = momentum

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "momentum": self.momentum}

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the offset and the running mean and variance, in float32 under any dtype policy."""

        def add(name: str, initializer: str, trainable: bool) -> keras.Variable:
            return self.add_weight(
                input_shape[-1:], initializer, "float32", trainable=trainable, autocast=False, name=name
            )

        self.offset = add("offset", "zeros", trainable=True)
        self.mean = add("mean", "zeros", trainable=False)
        self.variance = add("variance", "ones", trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Normalize by the statistics of the batch in training, by the running statistics otherwise."""
        is_tensorflow = keras.backend.backend() == "tensorflow"
        normalize = _normalize_on_tensorflow if is_tensorflow else _normalize_on_any_backend
        if not training:
            return normalize(inputs, self.offset, self.mean, self.variance)[0]
        outputs, mean, variance = normalize(inputs, self.offset)
        for running, value in ((self.mean, mean), (self.variance, variance)):
            running.assign(running * self.momentum + ops.cast(value, "float32") * (1 - self.momentum))
        return outputs


OutputsMeanVariance = tuple[Any, Any, Any]


def _normalize_on_tensorflow(inputs: Any, offset: Any, mean: Any = None, variance: Any = None) -> OutputsMeanVariance:
    """Normalize by the given mean and variance, or by those of the inputs, and return them too."""
    import tensorflow as tf

    offset, mean, variance = (None if x is None else tf.convert_to_tensor(x) for x in (offset, mean, variance))
    return tf.compat.v1.nn.fused_batch_norm(
        inputs, tf.ones_like(offset), offset, mean, variance, epsilon=EPSILON, is_training=mean is None
    )


def _normalize_on_any_backend(inputs: Any, offset: Any, mean: Any = None, variance: Any = None) -> OutputsMeanVariance:
    """Normalize with the operations of any Keras backend. See `_normalize_on_tensorflow`."""
    if mean is None:
        mean, variance = batch_moments(inputs)
    scale = ops.rsqrt(variance + EPSILON)
    outputs = inputs * ops.cast(scale, inputs.dtype) + ops.cast(offset - mean * scale, inputs.dtype)
    return outputs, mean, variance


def batch_moments(inputs: Any) -> tuple[Any, Any]:
    """Return mean and variance of each channel of (n, height, width, channels), in float32 at least.

    Both are sums of one pass over the inputs. `ops.moments` takes two passes, and two more for the gradient, which a
    GPU waits for.
    """
    wide = inputs if keras.backend.standardize_dtype(inputs.dtype) == "float64" else ops.cast(inputs, "float32")
    mean, mean_of_squares = (ops.mean(each, axis=(0, 1, 2)) for each in (wide, ops.square(wide)))
    return mean, ops.maximum(mean_of_squares - ops.square(mean), 0)


@keras.saving.register_keras_serializable("fmnist")
class WindowMaxPooling2D(keras.layers.MaxPooling2D):
    """Max pooling without overlap, as the maximum over two axes of each window.

    The gradient of JAX's own pooling scatters, which is slow on a GPU. It differs where several inputs are the maximum:
    here they share the gradient.
    """

    def call(self, inputs: Any) -> Any:
        """Return the maximum of each window, (n, height // size, width // size, channels)."""
        size = self.pool_size[0]
        height, width = inputs.shape[1] // size, inputs.shape[2] // size
        windows = inputs[:, : height * size, : width * size]
        return ops.max(ops.reshape(windows, (-1, height, size, width, size, inputs.shape[-1])), axis=(2, 4))


@keras.saving.register_keras_serializable("fmnist")
class SummedConv2D(keras.layers.Conv2D):
    """Convolution of images with one channel, without padding, bias and strides, as a sum of shifted images.

    A GPU's convolutions are made for many channels. A sum is fused with the pooling and the ReLU that follow, so that
    the full-size outputs are never written to memory.
    """

    def call(self, inputs: Any) -> Any:
        """Return the outputs, (n, height - kernel_height + 1, width - kernel_width + 1, filters)."""
        rows, columns = self.kernel_size
        height, width = inputs.shape[1] - rows + 1, inputs.shape[2] - columns + 1
        # The sum is in float32, as that of a convolution in bfloat16 is.
        wide = inputs if self.compute_dtype == "float64" else ops.cast(inputs, "float32")
        kernel = ops.cast(self.kernel, wide.dtype)
        shifted = (
            wide[:, i : i + height, j : j + width] * kernel[i, j, 0] for i in range(rows) for j in range(columns)
        )
        return ops.cast(reduce(ops.add, shifted), self.compute_dtype)


@keras.saving.register_keras_serializable("fmnist")
class MatmulGradientConv2D(keras.layers.Conv2D):
    """Convolution whose kernel gradient is a matrix product for each weight, on small images in bfloat16.

    There, that is up to 2.7 times as fast as the gradient that TensorFlow computes on a CPU (docs/log.md). It differs
    by rounding. On larger images, and with another precision or backend, this layer is a `Conv2D`. It is for padding
    "same", an odd kernel, and no strides, dilation, groups or bias.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Return the outputs, (n, height, width, filters)."""
        is_small = max(inputs.shape[1:3]) <= MATMUL_GRADIENT_SIZE
        if not (is_small and self.compute_dtype == "bfloat16" and keras.backend.backend() == "tensorflow"):
            return super().convolution_op(inputs, kernel)
        return _convolve_on_tensorflow(inputs, kernel)


def _convolve_on_tensorflow(inputs: Any, kernel: Any) -> Any:
    """Convolve with the gradients of `MatmulGradientConv2D`."""
    import tensorflow as tf

    @tf.custom_gradient
    def convolve(inputs: Any, kernel: Any) -> Any:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            to_inputs = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(inputs), strides=1)
            return to_inputs, kernel_gradient(inputs, upstream, kernel.shape[:2])

        return tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME"), gradients

    return convolve(inputs, tf.convert_to_tensor(kernel))


def kernel_gradient(inputs: Any, upstream: Any, size: tuple[int, int]) -> Any:
    """Return the gradient of a convolution's kernel, with padding "same" and without strides.

    The gradient of a weight is a matrix product of the inputs and of the gradients that they reach through it.

    Args:
        inputs: (n, height, width, channels).
        upstream: gradient of the outputs, (n, height, width, filters).
        size: height and width of the kernel, both odd.

    Returns:
        (kernel_height, kernel_width, channels, filters).
    """
    _, height, width, channels = inputs.shape
    filters = upstream.shape[-1]
    # The images come last before the filters, so that every window below consists of long runs in memory.
    inputs, upstream = ops.transpose(inputs, (3, 1, 2, 0)), ops.transpose(upstream, (1, 2, 0, 3))
    products = []
    for row in range(-(size[0] // 2), size[0] // 2 + 1):
        for column in range(-(size[1] // 2), size[1] // 2 + 1):
            seen = inputs[:, _overlap(row, height), _overlap(column, width)]
            reached = upstream[_overlap(-row, height), _overlap(-column, width)]
            products.append(ops.matmul(ops.reshape(seen, (channels, -1)), ops.reshape(reached, (-1, filters))))
    return ops.reshape(ops.stack(products), (*size, channels, filters))


def _overlap(shift: int, length: int) -> slice:
    """Return the positions p for which p - `shift` is also between 0 and `length`."""
    return slice(max(shift, 0), max(length + min(shift, 0), 0))
