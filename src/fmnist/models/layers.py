"""What Keras' own layers lack for a quick network."""

from typing import Any

import keras

ops = keras.ops

EPSILON = 1e-3


class FusedBatchNormalization(keras.layers.Layer):
    """Batch normalisation with an offset and without a scale.

    On TensorFlow it is a single operation; Keras' own layer is built of many there, and takes longer (docs/log.md). The
    scale would be undone by the next layer, behind a ReLU, where it is not normalised away.
    """

    def __init__(self, momentum: float = 0.6, **options: Any):
        """Make the layer.

        Args:
            momentum: share of the running mean and variance that stays at each step; a run of a few hundred steps
                needs a short memory.
            options: of `keras.layers.Layer`.
        """
        super().__init__(**options)
        self.momentum = momentum

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the offset and the running mean and variance, all float32."""

        def add(name: str, initializer: str, trainable: bool) -> keras.Variable:
            return self.add_weight(
                input_shape[-1:], initializer, "float32", trainable=trainable, autocast=False, name=name
            )

        self.offset = add("offset", "zeros", trainable=True)
        self.mean = add("mean", "zeros", trainable=False)
        self.variance = add("variance", "ones", trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Normalise by the batch in training, by the running values otherwise."""
        is_tensorflow = keras.backend.backend() == "tensorflow"
        normalise = _normalise_on_tensorflow if is_tensorflow else _normalise_anywhere
        if not training:
            return normalise(inputs, self.offset, self.mean, self.variance)[0]
        outputs, mean, variance = normalise(inputs, self.offset)
        for running, value in ((self.mean, mean), (self.variance, variance)):
            running.assign(running * self.momentum + ops.cast(value, "float32") * (1 - self.momentum))
        return outputs


Normalised = tuple[Any, Any, Any]
"""The outputs, and the mean and the variance that they were normalised by."""


def _normalise_on_tensorflow(inputs: Any, offset: Any, mean: Any = None, variance: Any = None) -> Normalised:
    import tensorflow as tf

    offset, mean, variance = (None if x is None else tf.convert_to_tensor(x) for x in (offset, mean, variance))
    return tf.compat.v1.nn.fused_batch_norm(
        inputs, tf.ones_like(offset), offset, mean, variance, epsilon=EPSILON, is_training=mean is None
    )


def _normalise_anywhere(inputs: Any, offset: Any, mean: Any = None, variance: Any = None) -> Normalised:
    if mean is None:
        mean, variance = ops.moments(ops.cast(inputs, "float32"), axes=(0, 1, 2))
    scale = ops.rsqrt(variance + EPSILON)
    outputs = inputs * ops.cast(scale, inputs.dtype) + ops.cast(offset - mean * scale, inputs.dtype)
    return outputs, mean, variance
