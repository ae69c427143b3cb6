"""Augmentation and order: pure in (seed, epoch), and images stay images."""

import numpy as np
import pytest

from fmnist import augment

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)


def test_the_same_seed_and_epoch_give_the_same():
    for epoch in (0, 3):
        first, second = (augment.augment(IMAGES, 7, epoch, flip=True, shift=2) for _ in range(2))
        assert (first == second).all()
        assert (augment.order(50, 7, epoch) == augment.order(50, 7, epoch)).all()
        assert (augment.dropout_seed(7, epoch, 1) == augment.dropout_seed(7, epoch, 1)).all()


@pytest.mark.parametrize("other", [{"seed": 8, "epoch": 0}, {"seed": 7, "epoch": 1}])
def test_another_seed_or_epoch_gives_another(other):
    given = {"seed": 7, "epoch": 0}
    assert not (augment.order(50, **given) == augment.order(50, **other)).all()
    assert not (augment.dropout_seed(layer=1, **given) == augment.dropout_seed(layer=1, **other)).all()
    assert not (
        augment.augment(IMAGES, **given, flip=False, shift=2) == augment.augment(IMAGES, **other, flip=False, shift=2)
    ).all()


def test_layers_draw_different_masks():
    assert not (augment.dropout_seed(7, 0, 1) == augment.dropout_seed(7, 0, 2)).all()


def test_order_is_a_permutation():
    assert sorted(augment.order(50, 1, 2)) == list(range(50))


def test_flips_alternate():
    even, odd, next_even = (augment.augment(IMAGES, 1, epoch, flip=True, shift=0) for epoch in (0, 1, 2))
    assert (even == next_even).all()
    assert (odd == even[:, :, ::-1]).all()
    mirrored = (even == IMAGES[:, :, ::-1]).all(axis=(1, 2))
    assert 10 < mirrored.sum() < 40
    assert ((even == IMAGES).all(axis=(1, 2)) | mirrored).all()


def test_shifts_move_the_picture_and_fill_with_black():
    result = augment.augment(IMAGES, 1, 0, flip=False, shift=2)
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2)))
    offsets = set()
    for image, ground in zip(result, padded, strict=True):
        (found,) = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if (ground[row : row + 28, column : column + 28] == image).all()
        ]
        offsets.add(found)
    assert len(offsets) > 10


def test_nothing_asked_for_changes_nothing():
    assert augment.augment(IMAGES, 1, 5, flip=False, shift=0) is IMAGES
