"""Batch normalization against NumPy."""

import keras
import numpy as np
import pytest

from fmnist.models.layers import EPSILON, FusedBatchNormalization

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
