"""The layer and the optimizer that Keras lacks, against plain NumPy."""

import keras
import numpy as np
import pytest

from fmnist.models import layers
from fmnist.models import muon as optimizers

INPUTS = np.random.default_rng(0).normal(2, 3, (64, 5, 5, 4)).astype(np.float32)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_batch_normalisation_in_training(backend, monkeypatch):
    """With the fused operation and with the neutral one: the branch is chosen by the backend's name."""
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    layer = layers.FusedBatchNormalization(momentum=0.6)
    layer.build(INPUTS.shape)
    layer.offset.assign([1, 2, 3, 4])
    mean, variance = INPUTS.mean(axis=(0, 1, 2)), INPUTS.var(axis=(0, 1, 2))
    expected = (INPUTS - mean) / np.sqrt(variance + layers.EPSILON) + np.arange(1, 5)
    outputs = keras.ops.convert_to_numpy(layer(INPUTS, training=True))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.mean), 0.4 * mean, rtol=1e-4)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.variance), 0.6 + 0.4 * variance, rtol=2e-3)


def test_batch_normalisation_outside_training_uses_the_running_values():
    layer = layers.FusedBatchNormalization()
    layer.build(INPUTS.shape)
    layer.mean.assign([1, 2, 3, 4])
    layer.variance.assign([4, 4, 9, 9])
    expected = (INPUTS - np.array([1, 2, 3, 4])) / np.sqrt(np.array([4, 4, 9, 9]) + layers.EPSILON)
    before = keras.ops.convert_to_numpy(layer.mean)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(INPUTS)), expected, atol=1e-5)
    assert (keras.ops.convert_to_numpy(layer.mean) == before).all()


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (3, 3, 2, 32), (1, 1, 64, 8)])
def test_orthogonalise_pulls_all_singular_values_towards_one(shape):
    kernel = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    result = keras.ops.convert_to_numpy(optimizers.orthogonalise(keras.ops.convert_to_tensor(kernel)))
    assert result.shape == shape
    before, after = (np.linalg.svd(array.reshape(-1, shape[-1]), compute_uv=False) for array in (kernel, result))
    assert after.max() / after.min() < before.max() / before.min()
    assert after.min() > 0.3
    assert after.max() < 1.4


def test_muon_keeps_a_kernel_at_its_norm_and_moves_it_downhill():
    kernel = keras.Variable(np.random.default_rng(2).normal(size=(3, 3, 4, 8)).astype(np.float32))
    target = np.random.default_rng(3).normal(size=(3, 3, 4, 8)).astype(np.float32)
    optimizer = optimizers.Muon(learning_rate=0.05, momentum=0.6, adam_share=0.1)
    optimizer.build([kernel])

    def likeness():
        value = keras.ops.convert_to_numpy(kernel)
        return (value * target).sum() / np.linalg.norm(value) / np.linalg.norm(target)

    before = likeness()
    for _ in range(100):
        optimizer.apply([-target], [kernel])
    assert likeness() > max(0.8, before)
    assert np.linalg.norm(keras.ops.convert_to_numpy(kernel)) == pytest.approx(np.sqrt(8), rel=0.2)


def test_what_is_no_kernel_is_moved_as_keras_adam_does():
    gradients = np.random.default_rng(4).normal(size=(20, 6)).astype(np.float32)
    ours, theirs = (keras.Variable(np.ones(6, np.float32)) for _ in range(2))
    muon = optimizers.Muon(learning_rate=0.12, momentum=0.8, adam_share=0.25)
    adam = keras.optimizers.Adam(0.03, *optimizers.ADAM_BETAS)
    for optimizer, variable in ((muon, ours), (adam, theirs)):
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs), atol=1e-5)
