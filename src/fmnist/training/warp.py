"""Geometric transforms of images with a black background, vectorized over the images.

Coordinates are relative to the center of the image, in pixels: x to the right, y down.
"""

from dataclasses import dataclass

import numpy as np

from fmnist.config import IMAGE_SIZE

HALF_SIZE = IMAGE_SIZE / 2
BACKGROUND_MAX = 8
"""Highest gray level that counts as background. Faint pixels would otherwise decide the extent of an object."""

Y, X = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32) - np.float32((IMAGE_SIZE - 1) / 2)
"""(28, 28) each: coordinates of the pixel centers."""


@dataclass(frozen=True)
class Warp:
    """Parameters of `warp_and_fit`: (n,) arrays, or one number for all images. The defaults change nothing."""

    angle: np.ndarray | float = 0.0
    """Rotation in radians, clockwise."""
    log_aspect: np.ndarray | float = 0.0
    """Natural logarithm of the factor by which width / height changes."""
    shear: np.ndarray | float = 0.0
    """Shift to the right per pixel below the center."""
    bend: np.ndarray | float = 0.0
    """Upward shift of the left and right edges of the image relative to its middle, in half images."""
    taper: np.ndarray | float = 0.0
    """Perspective. The width is divided by 1 - taper at the upper edge of the image, and by 1 + taper at the lower."""


def warp_and_fit(images: np.ndarray, warp: Warp) -> np.ndarray:
    """Taper, bend, stretch, shear and rotate objects, in this order, and fit each to the image again.

    Args:
        images: (n, 28, 28) float32, n as in `sample`.
        warp: the parameters.

    Returns:
        (n, 28, 28) float32. The bounding box of the pixels above `BACKGROUND_MAX` is centered and its longer edge is 28
        pixels, as in Fashion-MNIST.
    """
    angle, log_aspect, shear, bend, taper = (
        per_image(np.broadcast_to(values, len(images))).astype(np.float32)
        for values in (warp.angle, warp.log_aspect, warp.shear, warp.bend, warp.taper)
    )
    cosine, sine, stretch = np.cos(angle), np.sin(angle), np.exp(log_aspect / 2)
    # The matrix ((a, b), (c, d)) is rotation @ shear @ stretch. Its determinant is 1.
    a, b = cosine * stretch, (cosine * shear - sine) / stretch
    c, d = sine * stretch, (sine * shear + cosine) / stretch

    # Forward: the bounding box of the warped object.
    x = X / (1 + taper * Y / HALF_SIZE)
    y = Y - bend * x**2 / HALF_SIZE
    is_foreground = images > BACKGROUND_MAX
    is_foreground |= ~is_foreground.any(axis=(1, 2), keepdims=True)  # an empty image has no bounding box
    centers, sizes = [], []
    for position, pixel_size in ((a * x + b * y, np.abs(a) + np.abs(b)), (c * x + d * y, np.abs(c) + np.abs(d))):
        low = np.where(is_foreground, position, np.inf).min(axis=(1, 2), keepdims=True)
        high = np.where(is_foreground, position, -np.inf).max(axis=(1, 2), keepdims=True)
        centers.append((low + high) / 2)
        sizes.append(high - low + pixel_size)

    # Backward: the source position of each pixel of the result.
    scale = np.maximum(*sizes) / IMAGE_SIZE
    x, y = scale * X + centers[0], scale * Y + centers[1]
    x, y = d * x - b * y, a * y - c * x
    y = y + bend * x**2 / HALF_SIZE
    x = x * (1 + taper * y / HALF_SIZE)
    return sample(images, x, y)


def sample(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sample images at the given positions by bilinear interpolation. Outside the image all is 0.

    Args:
        images: (n, 28, 28) float32, n at most 1,092 because OpenCV takes at most 32,767 rows.
        x: (n, 28, 28), source x of each pixel of the result.
        y: (n, 28, 28), source y of each pixel of the result.

    Returns:
        (n, 28, 28) float32.
    """
    import cv2

    if len(images) == 0:
        return images
    # A call per image would be slow. One call samples all, stacked vertically, each with a black border of one pixel.
    size = IMAGE_SIZE + 2
    stacked = np.pad(images, ((0, 0), (1, 1), (1, 1))).reshape(-1, size)
    center = (size - 1) / 2
    first_row = size * np.arange(len(images))[:, np.newaxis, np.newaxis]
    columns = np.clip(x + center, 0, size - 1)
    rows = np.clip(y + center, 0, size - 1) + first_row
    sampled = cv2.remap(
        stacked.astype(np.float32),
        columns.reshape(-1, IMAGE_SIZE).astype(np.float32),
        rows.reshape(-1, IMAGE_SIZE).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    return sampled.reshape(images.shape)


def bounding_boxes(images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return first row, first column, height and width of the pixels that are not 0, each of shape (n, 1, 1)."""
    is_foreground = images > 0
    rows, columns = np.any(is_foreground, axis=2), np.any(is_foreground, axis=1)
    first_row, first_column = (per_image(line.argmax(axis=1)) for line in (rows, columns))
    end_row, end_column = (per_image(IMAGE_SIZE - line[:, ::-1].argmax(axis=1)) for line in (rows, columns))
    return first_row, first_column, end_row - first_row, end_column - first_column


def per_image(values: np.ndarray) -> np.ndarray:
    """Reshape one value per image from (n,) to (n, 1, 1), to broadcast with (n, 28, 28)."""
    return values[:, np.newaxis, np.newaxis]
