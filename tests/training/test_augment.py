"""Selection, flips, shifts and CutMix: reproducible from (seed, epoch), with valid images as the result."""

import numpy as np
import pytest

from fmnist.training import augment

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
ALL = np.arange(50)
UNSEEN = np.full(50, np.inf)


def flip_and_shift(images, indices, seed, epoch, flip=False, shift=0):
    """Draw a plan and apply it."""
    return augment.apply_plan(images, augment.draw_plan(len(images), indices, seed, epoch, flip, shift), shift)


def mix(images, labels, fraction, seed, epoch):
    """Draw and apply CutMix."""
    cutmix = augment.draw_cutmix(len(images), fraction, seed, epoch)
    return augment.mix_images(images, cutmix), augment.mix_labels(labels, cutmix)


def test_same_seed_and_epoch_give_the_same_result():
    for epoch in (0, 3):
        first, second = (flip_and_shift(IMAGES, ALL, 7, epoch, flip=True, shift=2) for _ in range(2))
        assert (first == second).all()
        first, second = (augment.select_hard_examples(UNSEEN, 40, 7, epoch) for _ in range(2))
        assert (first == second).all()
        assert (augment.dropout_seed(7, epoch, 1) == augment.dropout_seed(7, epoch, 1)).all()


@pytest.mark.parametrize("other", [{"seed": 8, "epoch": 0}, {"seed": 7, "epoch": 1}])
def test_another_seed_or_epoch_gives_another_result(other):
    key = {"seed": 7, "epoch": 0}
    for function in (
        lambda key: augment.select_hard_examples(UNSEEN, 40, **key),
        lambda key: augment.dropout_seed(layer=1, **key),
        lambda key: flip_and_shift(IMAGES, ALL, **key, shift=2),
    ):
        assert not (function(key) == function(other)).all()


def test_dropout_layers_have_different_seeds():
    assert not (augment.dropout_seed(7, 0, 1) == augment.dropout_seed(7, 0, 2)).all()


@pytest.mark.parametrize(("num_images", "num_selected"), [(50, 50), (50, 25), (51, 26), (50, 1)])
def test_every_image_is_selected_once_before_any_is_selected_again(num_images, num_selected):
    losses = np.full(num_images, np.inf)
    for epoch in range(num_images // num_selected):
        selected = augment.select_hard_examples(losses, num_selected, 1, epoch)
        assert len(set(selected)) == num_selected
        assert np.isinf(losses[selected]).all()
        losses[selected] = 1.0


def test_the_highest_losses_are_selected_in_a_new_order_each_epoch():
    losses = np.random.default_rng(3).permutation(50).astype(float)
    first, second = (augment.select_hard_examples(losses, 20, 1, epoch) for epoch in (4, 5))
    assert set(first) == set(second) == set(np.flatnonzero(losses >= 30))
    assert not (first == second).all()


def test_flips_alternate():
    even, odd, next_even = (flip_and_shift(IMAGES, ALL, 1, epoch, flip=True) for epoch in (0, 1, 2))
    assert (even == next_even).all()
    assert (odd == even[:, :, ::-1]).all()
    is_flipped = (even == IMAGES[:, :, ::-1]).all(axis=(1, 2))
    assert 10 < is_flipped.sum() < 40
    assert ((even == IMAGES).all(axis=(1, 2)) | is_flipped).all()


def test_shifts_move_the_image_and_fill_with_zeros():
    shifted = flip_and_shift(IMAGES, ALL, 1, 0, shift=2)
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2)))
    offsets = set()
    for image, source in zip(shifted, padded, strict=True):
        (offset,) = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if (source[row : row + 28, column : column + 28] == image).all()
        ]
        offsets.add(offset)
    assert len(offsets) > 10


def test_result_for_an_image_does_not_depend_on_the_others():
    indices = np.array([30, 3, 44])
    options = {"flip": True, "shift": 2}
    some = flip_and_shift(IMAGES, indices, 1, 3, **options)
    assert (some == flip_and_shift(IMAGES, ALL, 1, 3, **options)[indices]).all()


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_cutmix_pastes_a_rectangle_of_another_image_and_mixes_the_labels_by_area(fraction):
    """Every image has its own gray level and class."""
    plain = np.full((200, 28, 28), np.arange(200, dtype=np.uint8)[:, np.newaxis, np.newaxis])
    labels = np.eye(200, dtype=np.float32)
    images, mixed = mix(plain, labels, fraction, 7, 3)
    assert (images.dtype, images.shape, mixed.dtype, mixed.shape) == (np.uint8, plain.shape, np.float32, labels.shape)
    areas = []
    for number, (image, label) in enumerate(zip(images, mixed, strict=True)):
        np.testing.assert_allclose(label, np.bincount(image.ravel(), minlength=200) / image.size, atol=1e-6)
        is_pasted = image != number
        assert is_pasted.sum() == is_pasted.any(axis=1).sum() * is_pasted.any(axis=0).sum()
        assert len(set(image[is_pasted])) <= 1
        areas.append(is_pasted.mean())
    assert np.mean(np.array(areas) > 0) == pytest.approx(fraction, abs=0.1)
    assert max(areas) > 0.7
    repeated = mix(plain, labels, fraction, 7, 3)
    assert (repeated[0] == images).all()
    assert (repeated[1] == mixed).all()
    for seed, epoch in ((7, 4), (8, 3)):
        assert not (mix(plain, labels, fraction, seed, epoch)[0] == images).all()


def test_cutmix_draws_partners_and_rectangles_uniformly():
    plain = np.full((5_000, 28, 28), np.arange(5_000)[:, np.newaxis, np.newaxis])
    images, _ = mix(plain, np.zeros((5_000, 1), np.float32), 1.0, 7, 3)
    is_pasted = images != plain
    assert is_pasted.any(axis=0).all()
    assert len(set(images[is_pasted])) > 2_000
    # The expected area inside the image, by simulation in continuous coordinates.
    rng = np.random.default_rng(0)
    lengths = 28 * np.sqrt(rng.random((200_000, 1)))
    centers = 28 * rng.random((200_000, 2))
    inside = np.minimum(centers + lengths / 2, 28) - np.maximum(centers - lengths / 2, 0)
    assert is_pasted.mean() == pytest.approx((inside / 28).prod(axis=1).mean(), abs=0.02)


def test_cutmix_of_a_single_image_changes_nothing():
    image, label = IMAGES[:1], np.eye(10, dtype=np.float32)[:1]
    mixed_image, mixed_label = mix(image, label, 1.0, 7, 3)
    assert (mixed_image == image).all()
    np.testing.assert_allclose(mixed_label, label)


def test_inputs_are_not_modified():
    images, labels = IMAGES.copy(), np.eye(50, dtype=np.float32)
    flip_and_shift(images, ALL, 1, 3, flip=True, shift=2)
    mix(images, labels, 1.0, 1, 3)
    flip_and_shift(images, ALL, 1, 5)[:] = 0
    assert (images == IMAGES).all()
    assert (labels == np.eye(50)).all()


def test_without_flip_and_shift_images_are_unchanged():
    assert (flip_and_shift(IMAGES, ALL, 1, 5) == IMAGES).all()


def test_a_plan_with_cutmix_mixes_the_flipped_and_shifted_images():
    plan = augment.draw_plan(50, ALL, 7, 3, flip=True, shift=2, cutmix=1.0)
    expected, _ = mix(flip_and_shift(IMAGES, ALL, 7, 3, flip=True, shift=2), np.eye(50, dtype=np.float32), 1.0, 7, 3)
    assert (augment.apply_plan(IMAGES, plan, 2) == expected).all()
