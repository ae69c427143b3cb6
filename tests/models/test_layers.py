"""Batch normalization, pooling and the convolution of one channel against NumPy and Keras."""

import keras
import numpy as np
import pytest

from fmnist.models.layers import EPSILON, FusedBatchNormalization, SummedConv2D, WindowMaxPooling2D, batch_moments

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
