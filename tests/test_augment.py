"""Augmentation and order: pure in (seed, epoch), and images stay images."""

import numpy as np
import pytest

from fmnist import augment

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
ALL = np.arange(50)
UNSEEN = np.full(50, np.inf)


def test_the_same_seed_and_epoch_give_the_same():
    for epoch in (0, 3):
        first, second = (augment.augment(IMAGES, ALL, 7, epoch, flip=True, shift=2) for _ in range(2))
        assert (first == second).all()
        assert (augment.visit(UNSEEN, 40, 7, epoch) == augment.visit(UNSEEN, 40, 7, epoch)).all()
        assert (augment.dropout_seed(7, epoch, 1) == augment.dropout_seed(7, epoch, 1)).all()


@pytest.mark.parametrize("other", [{"seed": 8, "epoch": 0}, {"seed": 7, "epoch": 1}])
def test_another_seed_or_epoch_gives_another(other):
    given = {"seed": 7, "epoch": 0}
    assert not (augment.visit(UNSEEN, 40, **given) == augment.visit(UNSEEN, 40, **other)).all()
    assert not (augment.dropout_seed(layer=1, **given) == augment.dropout_seed(layer=1, **other)).all()
    assert not (
        augment.augment(IMAGES, ALL, **given, flip=False, shift=2)
        == augment.augment(IMAGES, ALL, **other, flip=False, shift=2)
    ).all()


def test_layers_draw_different_masks():
    assert not (augment.dropout_seed(7, 0, 1) == augment.dropout_seed(7, 0, 2)).all()


@pytest.mark.parametrize(("num_images", "num_visited"), [(50, 50), (50, 25), (51, 26), (50, 1)])
def test_no_image_is_visited_twice_before_each_was_visited_once(num_images, num_visited):
    losses = np.full(num_images, np.inf)
    for epoch in range(num_images // num_visited):
        visited = augment.visit(losses, num_visited, 1, epoch)
        assert len(set(visited)) == num_visited
        assert np.isinf(losses[visited]).all()
        losses[visited] = 1.0


def test_the_hardest_images_are_visited_in_a_new_order_each_epoch():
    losses = np.random.default_rng(3).permutation(50).astype(float)
    first, second = (augment.visit(losses, 20, 1, epoch) for epoch in (4, 5))
    assert set(first) == set(second) == set(np.flatnonzero(losses >= 30))
    assert not (first == second).all()


def test_flips_alternate():
    even, odd, next_even = (augment.augment(IMAGES, ALL, 1, epoch, flip=True) for epoch in (0, 1, 2))
    assert (even == next_even).all()
    assert (odd == even[:, :, ::-1]).all()
    mirrored = (even == IMAGES[:, :, ::-1]).all(axis=(1, 2))
    assert 10 < mirrored.sum() < 40
    assert ((even == IMAGES).all(axis=(1, 2)) | mirrored).all()


def test_shifts_move_the_picture_and_fill_with_black():
    result = augment.augment(IMAGES, ALL, 1, 0, shift=2)
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


@pytest.mark.parametrize("side", [1, 7, 8])
def test_cutout_blacks_out_one_square_anywhere(side):
    white = np.full((10_000, 28, 28), 255, np.uint8)
    is_black = augment.augment(white, np.arange(10_000), 1, 0, cutout=side) == 0
    rows, columns = is_black.any(axis=2).sum(axis=1), is_black.any(axis=1).sum(axis=1)
    assert (is_black.sum(axis=(1, 2)) == rows * columns).all()
    assert rows.max() == columns.max() == side
    # a square that lies partly outside is smaller, never away
    assert rows.min() == columns.min() == side - side // 2
    assert is_black.any(axis=0).all()


def test_what_happens_to_an_image_does_not_depend_on_the_others():
    chosen = np.array([30, 3, 44])
    options = {"flip": True, "shift": 2, "cutout": 8}
    some = augment.augment(IMAGES, chosen, 1, 3, **options)
    assert (some == augment.augment(IMAGES, ALL, 1, 3, **options)[chosen]).all()


def test_the_originals_are_left_alone():
    before = IMAGES.copy()
    augment.augment(IMAGES, ALL, 1, 3, flip=True, shift=2)
    assert (augment.augment(IMAGES, ALL, 1, 5) == IMAGES).all()
    assert (before == IMAGES).all()
