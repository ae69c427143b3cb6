"""Geometric transforms, on simple shapes."""

import numpy as np
import pytest

from fmnist.training.warp import Warp, X, Y, bounding_boxes, sample, warp_and_fit


def rectangle(top, bottom, left, right):
    image = np.zeros((28, 28), np.float32)
    image[top:bottom, left:right] = 200
    return image


def rows_and_columns(image):
    """Return the number of rows and of columns with bright pixels."""
    return (image > 100).any(axis=1).sum(), (image > 100).any(axis=0).sum()


def middle(line):
    """Return the mean position of the bright pixels of a row or column."""
    return np.flatnonzero(line > 100).mean()


@pytest.mark.parametrize(
    ("warp", "size"),
    [
        (Warp(), (28, 14)),
        (Warp(angle=np.pi / 2), (14, 28)),
        (Warp(log_aspect=np.log(2)), (28, 28)),
        (Warp(shear=0.5), (28, 28)),
    ],
)
def test_warped_rectangle_has_the_expected_size(warp, size):
    (warped,) = warp_and_fit(rectangle(4, 24, 9, 19)[np.newaxis], warp)
    np.testing.assert_allclose(rows_and_columns(warped), size, atol=1)


def test_directions_of_the_parameters():
    """As in the docstrings of `Warp`: clockwise, up at the sides, right below the center, narrow at the lower edge."""
    images = np.stack([rectangle(12, 16, 2, 26)] * 2 + [rectangle(2, 26, 8, 20)] * 2)
    parameters = ("angle", "bend", "shear", "taper")
    warp = Warp(**{name: 0.3 * (np.arange(4) == number) for number, name in enumerate(parameters)})
    rotated, bent, sheared, tapered = warp_and_fit(images, warp)
    assert middle(rotated[:, -1]) > middle(rotated[:, 0]) + 4
    assert middle(bent[:, 0]) < middle(bent[:, 14]) - 2
    assert middle(bent[:, -1]) < middle(bent[:, 14]) - 2
    assert middle(sheared[-1]) > middle(sheared[0]) + 4
    assert (tapered[-1] > 100).sum() < (tapered[0] > 100).sum() - 4


def test_parameters_apply_to_each_image():
    images = np.stack([rectangle(4, 24, 9, 19)] * 2)
    both = warp_and_fit(images, Warp(angle=np.array([0, np.pi / 2])))
    single = [warp_and_fit(images[:1], Warp(angle=angle))[0] for angle in (0, np.pi / 2)]
    # OpenCV rounds positions to 1/32 pixel, a step of up to 200 / 32 gray levels at an edge.
    np.testing.assert_allclose(both, np.stack(single), atol=2 * 200 / 32)


def test_objects_are_centered_and_enlarged_to_the_image():
    (warped,) = warp_and_fit(rectangle(1, 6, 20, 24)[np.newaxis], Warp())
    rows, columns = np.nonzero(warped > 100)
    assert (rows.min(), rows.max()) == (0, 27)
    assert columns.mean() == pytest.approx(13.5, abs=0.5)


def test_empty_images_stay_empty():
    assert not warp_and_fit(np.zeros((3, 28, 28), np.float32), Warp(angle=1, bend=0.3, taper=0.1)).any()
    assert warp_and_fit(np.zeros((0, 28, 28), np.float32), Warp()).shape == (0, 28, 28)


def test_sampling_interpolates_and_is_zero_outside():
    images = np.random.default_rng(0).random((3, 28, 28), np.float32)
    x, y = (np.broadcast_to(positions, images.shape) for positions in (X, Y))
    assert (sample(images, x, y) == images).all()
    np.testing.assert_allclose(
        sample(images, x + 0.5, y)[:, :, :-1], (images[:, :, :-1] + images[:, :, 1:]) / 2, rtol=1e-4
    )
    assert not sample(images, x + 100, y).any()
    assert not sample(images, x, y - 100).any()


def test_bounding_boxes():
    boxes = bounding_boxes(np.stack([rectangle(4, 24, 9, 19), rectangle(0, 1, 27, 28)]))
    assert all(values.shape == (2, 1, 1) for values in boxes)
    assert np.stack(boxes, axis=1)[:, :, 0, 0].tolist() == [[4, 9, 20, 10], [0, 27, 1, 1]]
