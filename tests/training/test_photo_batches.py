"""Photos as training examples: which are drawn, their labels and their loss."""

import keras
import numpy as np
import pytest

from fmnist.data.photos import PhotoSet
from fmnist.training.photo_batches import AnyOfCrossentropy, draw_photos, one_hot_photos


@pytest.fixture
def photos(small):
    category = np.repeat(["shirt", "hat"], [90, 10])
    accepted = np.zeros((100, 10), bool)
    accepted[:90, 6] = True
    return PhotoSet(small.train_images[:100], accepted, category, np.zeros(100, bool), "0" * 64)


def test_rare_categories_are_drawn_more_often_than_their_share(photos):
    images, indices = draw_photos(photos, 4_000, seed=0, epoch=0, flip=True)
    assert (images.shape, images.dtype) == ((4_000, 28, 28), np.uint8)
    # by the inverse square root of their number: 10 ** 0.5 / (90 ** 0.5 + 10 ** 0.5) = 0.25, instead of 0.1
    assert (indices >= 90).mean() == pytest.approx(0.25, abs=0.03)


def test_a_draw_depends_on_seed_and_epoch_alone(photos):
    first, again, other = (draw_photos(photos, 50, seed=1, epoch=epoch, flip=False) for epoch in (2, 2, 3))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any()


def test_photos_are_mirrored_only_on_request(photos):
    left = np.zeros((100, 28, 28), np.uint8)
    left[:, 4:24, 2:8] = 200  # the warp centers it, so only the gradient tells the side
    left[:, 4:24, 8:14] = 90
    lit = PhotoSet(left, photos.accepted, photos.category, photos.is_held_out, photos.sha256)

    def is_bright_on_the_right(flip):
        images, _ = draw_photos(lit, 200, seed=0, epoch=0, flip=flip)
        return (images[:, :, 15:].mean(axis=(1, 2)) > images[:, :, :13].mean(axis=(1, 2))).mean()

    assert is_bright_on_the_right(False) < 0.1
    assert is_bright_on_the_right(True) == pytest.approx(0.5, abs=0.1)


def test_labels_have_a_column_for_none_of_the_classes():
    accepted = np.array([[True, False, False], [False, True, True], [False, False, False]])
    assert one_hot_photos(accepted).tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


def test_loss_of_several_classes_is_that_of_their_sum():
    loss = AnyOfCrossentropy()
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]], np.float32)
    several, one = np.array([[1, 1, 0, 0]], np.float32), np.array([[0, 0, 1, 0]], np.float32)
    np.testing.assert_allclose(loss(one, probabilities[:1]), -np.log(0.3), rtol=1e-5)

    logits = keras.Variable(np.log(probabilities[:1]))
    import tensorflow as tf

    def gradient(compute):
        with tf.GradientTape() as tape:
            value = compute(keras.ops.softmax(logits.value))
        return tape.gradient(value, logits.value).numpy()

    found = gradient(lambda found: loss(several, found))
    expected = gradient(lambda found: -keras.ops.log(keras.ops.sum(found * several)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
