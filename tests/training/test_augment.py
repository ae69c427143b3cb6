"""Augmentation and order: pure in (seed, epoch), and images stay images."""

import numpy as np
import pytest

from fmnist.training import augment

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


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_cutmix_pastes_a_rectangle_of_another_image_and_mixes_the_labels_by_area(share):
    """Every image has a brightness, and a class, of its own."""
    plain = np.full((200, 28, 28), np.arange(200, dtype=np.uint8)[:, np.newaxis, np.newaxis])
    labels = np.eye(200, dtype=np.float32)
    images, mixed = augment.cutmix(plain, labels, share, 7, 3)
    assert (images.dtype, images.shape, mixed.dtype, mixed.shape) == (np.uint8, plain.shape, np.float32, labels.shape)
    pasted_shares = []
    for number, (image, label) in enumerate(zip(images, mixed, strict=True)):
        np.testing.assert_allclose(label, np.bincount(image.ravel(), minlength=200) / image.size, atol=1e-6)
        is_pasted = image != number
        assert is_pasted.sum() == is_pasted.any(axis=1).sum() * is_pasted.any(axis=0).sum()
        assert len(set(image[is_pasted])) <= 1
        pasted_shares.append(is_pasted.mean())
    assert np.mean(np.array(pasted_shares) > 0) == pytest.approx(share, abs=0.1)
    assert max(pasted_shares) > 0.7
    again = augment.cutmix(plain, labels, share, 7, 3)
    assert (again[0] == images).all()
    assert (again[1] == mixed).all()
    for seed, epoch in ((7, 4), (8, 3)):
        assert not (augment.cutmix(plain, labels, share, seed, epoch)[0] == images).all()
    assert (labels == np.eye(200)).all()


def test_cutmix_takes_its_partners_from_everywhere_and_its_rectangles_too():
    plain = np.full((5_000, 28, 28), np.arange(5_000)[:, np.newaxis, np.newaxis])
    images, _ = augment.cutmix(plain, np.zeros((5_000, 1), np.float32), 1.0, 7, 3)
    is_pasted = images != plain
    assert is_pasted.any(axis=0).all()
    assert len(set(images[is_pasted])) > 2_000
    # A rectangle of uniform area whose centre is uniform too: what of it lies inside, worked out by number.
    generator = np.random.default_rng(0)
    lengths = 28 * np.sqrt(generator.random((200_000, 1)))
    centres = 28 * generator.random((200_000, 2))
    inside = np.minimum(centres + lengths / 2, 28) - np.maximum(centres - lengths / 2, 0)
    assert is_pasted.mean() == pytest.approx((inside / 28).prod(axis=1).mean(), abs=0.02)


def test_one_image_can_be_mixed_with_itself_alone():
    image, label = IMAGES[:1], np.eye(10, dtype=np.float32)[:1]
    mixed_image, mixed_label = augment.cutmix(image, label, 1.0, 7, 3)
    assert (mixed_image == image).all()
    np.testing.assert_allclose(mixed_label, label)


def test_what_happens_to_an_image_does_not_depend_on_the_others():
    chosen = np.array([30, 3, 44])
    options = {"flip": True, "shift": 2}
    some = augment.augment(IMAGES, chosen, 1, 3, **options)
    assert (some == augment.augment(IMAGES, ALL, 1, 3, **options)[chosen]).all()


def test_the_originals_are_left_alone():
    before = IMAGES.copy()
    augment.augment(IMAGES, ALL, 1, 3, flip=True, shift=2)
    augment.cutmix(IMAGES, np.ones((50, 1), np.float32), 1.0, 1, 3)
    assert (augment.augment(IMAGES, ALL, 1, 5) == IMAGES).all()
    assert (before == IMAGES).all()
