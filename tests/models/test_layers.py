"""Batch normalization, pooling and convolutions against NumPy and Keras."""

import keras
import numpy as np
import pytest

from fmnist.models import layers
from fmnist.models.layers import (
    EPSILON,
    MATMUL_GRADIENT_SIZE,
    FusedBatchNormalization,
    MatmulGradientConv2D,
    SummedConv2D,
    WindowMaxPooling2D,
    batch_moments,
    kernel_gradient,
)

INPUTS = np.random.default_rng(0).normal(2, 3, (64, 5, 5, 4)).astype(np.float32)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_training_normalizes_by_the_batch_and_updates_the_running_statistics(backend, monkeypatch):
    """Both implementations run on TensorFlow here, because the layer chooses by the name of the backend."""
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    layer = FusedBatchNormalization(momentum=0.6)
    layer.build(INPUTS.shape)
    layer.offset.assign([1, 2, 3, 4])
    mean, variance = INPUTS.mean(axis=(0, 1, 2)), INPUTS.var(axis=(0, 1, 2))
    expected = (INPUTS - mean) / np.sqrt(variance + EPSILON) + np.arange(1, 5)
    outputs = keras.ops.convert_to_numpy(layer(INPUTS, training=True))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.mean), 0.4 * mean, rtol=1e-4)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.variance), 0.6 + 0.4 * variance, rtol=2e-3)


def test_inference_normalizes_by_the_running_statistics():
    layer = FusedBatchNormalization()
    layer.build(INPUTS.shape)
    layer.mean.assign([1, 2, 3, 4])
    layer.variance.assign([4, 4, 9, 9])
    expected = (INPUTS - np.array([1, 2, 3, 4])) / np.sqrt(np.array([4, 4, 9, 9]) + EPSILON)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(INPUTS)), expected, atol=1e-5)
    assert (keras.ops.convert_to_numpy(layer.mean) == [1, 2, 3, 4]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_moments_of_a_batch(dtype):
    mean, variance = batch_moments(keras.ops.cast(INPUTS, dtype))
    assert keras.backend.standardize_dtype(mean.dtype) == ("float64" if dtype == "float64" else "float32")
    tolerance = 2e-2 if dtype == "bfloat16" else 1e-4
    np.testing.assert_allclose(keras.ops.convert_to_numpy(mean), INPUTS.mean(axis=(0, 1, 2)), atol=tolerance)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variance), INPUTS.var(axis=(0, 1, 2)), rtol=tolerance)


def test_variance_of_equal_inputs_is_not_negative():
    levels = np.linspace(1, 5_000, 64, dtype=np.float32)  # for some, the mean of the squares is rounded down
    _, variance = batch_moments(keras.ops.convert_to_tensor(np.tile(levels, (8, 7, 7, 1))))
    assert keras.ops.convert_to_numpy(variance).min() >= 0


@pytest.mark.parametrize("size", [2, 3])
def test_window_pooling_is_that_of_keras(size):
    """5 is divided by neither size."""
    layer = WindowMaxPooling2D(size)
    expected = keras.ops.convert_to_numpy(keras.layers.MaxPooling2D(size)(INPUTS))
    assert layer.compute_output_shape(INPUTS.shape) == expected.shape
    assert (keras.ops.convert_to_numpy(layer(INPUTS)) == expected).all()


@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-6), ("float64", 1e-12), ("mixed_bfloat16", 4e-3)])
@pytest.mark.parametrize("size", [3, (2, 5)])
def test_summed_convolution_is_that_of_keras(policy, tolerance, size):
    images = np.random.default_rng(1).random((4, 9, 8, 1))
    layer, reference = (cls(6, size, use_bias=False, dtype=policy) for cls in (SummedConv2D, keras.layers.Conv2D))
    expected = reference(images)
    layer.build(images.shape)
    layer.kernel.assign(reference.kernel)
    outputs = layer(images)
    assert outputs.dtype == expected.dtype
    assert outputs.shape == layer.compute_output_shape(images.shape)
    outputs, expected = (keras.ops.convert_to_numpy(keras.ops.cast(each, "float64")) for each in (outputs, expected))
    np.testing.assert_allclose(outputs, expected, atol=tolerance)


@pytest.mark.parametrize("size", [1, 3, (3, 5), 11])
def test_kernel_gradient_is_that_of_keras(size):
    """In float64, so that nothing is lost by rounding. The images have 4 by 5 pixels."""
    import tensorflow as tf

    rng = np.random.default_rng(2)
    images, upstream = tf.constant(rng.normal(size=(3, 4, 5, 2))), tf.constant(rng.normal(size=(3, 4, 5, 6)))
    reference = keras.layers.Conv2D(6, size, padding="same", use_bias=False, dtype="float64")
    with tf.GradientTape() as tape:
        outputs = reference(images)
    expected = tape.gradient(outputs, reference.kernel, upstream)
    np.testing.assert_allclose(kernel_gradient(images, upstream, reference.kernel_size), expected, atol=1e-12)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float32"])
@pytest.mark.parametrize("size", [MATMUL_GRADIENT_SIZE, MATMUL_GRADIENT_SIZE + 1])
def test_convolution_with_matmul_gradient_is_that_of_keras(policy, size, monkeypatch):
    """To the bit, but for the kernel's gradient in bfloat16, which is rounded to 8 bits."""
    import tensorflow as tf

    images = tf.constant(np.random.default_rng(3).random((16, size, size, 8)), tf.float32)
    results, replaced = [], []
    monkeypatch.setattr(layers, "kernel_gradient", lambda *args: replaced.append(1) or kernel_gradient(*args))
    layer, reference = (
        cls(4, 3, padding="same", use_bias=False, dtype=policy) for cls in (MatmulGradientConv2D, keras.layers.Conv2D)
    )
    reference.build(images.shape)
    layer.build(images.shape)
    layer.kernel.assign(reference.kernel)
    for each in (layer, reference):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = each(images)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 2)
        results.append((outputs, *tape.gradient(loss, [images, each.kernel])))
    (outputs, to_images, to_kernel), expected = results
    assert outputs.dtype == expected[0].dtype
    assert (keras.ops.convert_to_numpy(outputs) == keras.ops.convert_to_numpy(expected[0])).all()
    assert (keras.ops.convert_to_numpy(to_images) == keras.ops.convert_to_numpy(expected[1])).all()
    scale = keras.ops.convert_to_numpy(keras.ops.max(keras.ops.absolute(expected[2])))
    is_replaced = policy == "mixed_bfloat16" and size <= MATMUL_GRADIENT_SIZE
    assert bool(replaced) == is_replaced
    np.testing.assert_allclose(to_kernel, expected[2], rtol=0, atol=2**-7 * scale if is_replaced else 0)
