"""Muon: orthogonalization, the step of kernels, and the step of other variables against Keras' Adam."""

import keras
import numpy as np
import pytest

from fmnist.models.muon import ADAM_BETAS, Muon, orthogonalize


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (3, 3, 2, 32), (1, 1, 64, 8)])
def test_orthogonalize_moves_the_singular_values_towards_one(shape):
    kernel = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    result = keras.ops.convert_to_numpy(orthogonalize(keras.ops.convert_to_tensor(kernel)))
    assert result.shape == shape
    before, after = (np.linalg.svd(array.reshape(-1, shape[-1]), compute_uv=False) for array in (kernel, result))
    assert after.max() / after.min() < before.max() / before.min()
    assert after.min() > 0.3
    assert after.max() < 1.4


def test_kernels_move_downhill_at_a_fixed_norm():
    kernel = keras.Variable(np.random.default_rng(2).normal(size=(3, 3, 4, 8)).astype(np.float32))
    target = np.random.default_rng(3).normal(size=(3, 3, 4, 8)).astype(np.float32)
    optimizer = Muon(learning_rate=0.05, momentum=0.6, adam_lr_ratio=0.1)
    optimizer.build([kernel])

    def cosine_similarity():
        value = keras.ops.convert_to_numpy(kernel)
        return (value * target).sum() / np.linalg.norm(value) / np.linalg.norm(target)

    before = cosine_similarity()
    for _ in range(100):
        optimizer.apply([-target], [kernel])
    assert cosine_similarity() > max(0.8, before)
    assert np.linalg.norm(keras.ops.convert_to_numpy(kernel)) == pytest.approx(np.sqrt(8), rel=0.2)


def test_other_variables_move_as_with_keras_adam():
    gradients = np.random.default_rng(4).normal(size=(20, 6)).astype(np.float32)
    ours, theirs = (keras.Variable(np.ones(6, np.float32)) for _ in range(2))
    muon = Muon(learning_rate=0.12, momentum=0.8, adam_lr_ratio=0.25)
    adam = keras.optimizers.Adam(0.03, *ADAM_BETAS)
    for optimizer, variable in ((muon, ours), (adam, theirs)):
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs), atol=1e-5)
