"""Recognize images in the format of the data set among pictures: 28x28 gray pixels, in any encoding, also enlarged."""

from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from fmnist.config import IMAGE_SIZE

MAX_MEAN_COLOR = 3.0
"""Mean difference between the color channels of a gray picture, from 0 to 255; lossy WebP leaves about 1."""
MAX_EDGE = 280
"""A larger picture is first reduced to this edge, so that ten pixels across show one of the original."""
MAX_RESIDUAL = 4.5
"""Root-mean-square error of the best enlargement, from 0 to 255. Enlarged training images have up to 3.5, and 5.2 as a
JPEG of quality 75; 98 % of 400 photos cut to gray squares have 5 or more, and nearly all of these no even ground."""
DARK, LIGHT = 40, 215
"""Highest value of a black ground and lowest value of a white one, from 0 to 255."""
MIN_GROUND_SHARE = 0.4
"""Of the border: so much of it shows the ground. Of 60,000 training images two have less."""
NUM_ITERATIONS = 4
FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.HAMMING,
)
"""The interpolations by which pictures are enlarged."""


def recover(picture: Image.Image) -> np.ndarray | None:
    """Return the pixels of an image in the format of the data set, however it was encoded or enlarged.

    An enlargement is recognized by undoing it: the 28x28 pixels that explain the picture best, in the sense of least
    squares, are enlarged again by each usual interpolation, and the best result must be nearly the picture.

    Args:
        picture: as `picture.read` returns it.

    Returns:
        (28, 28) uint8; None if the picture has colors, transparent parts or details, or is not square.
    """
    if picture.mode == "RGBA" or picture.width != picture.height:
        return None
    if picture.width > MAX_EDGE:
        import cv2

        reduced = cv2.resize(np.asarray(picture), (MAX_EDGE, MAX_EDGE), interpolation=cv2.INTER_AREA)
        picture = Image.fromarray(reduced)
    if picture.mode == "RGB" and not _is_gray(picture):
        return None
    gray = np.asarray(picture.convert("L"))
    if gray.shape == (IMAGE_SIZE, IMAGE_SIZE):
        return gray.copy()
    return _undo_enlargement(gray)


def find_ground(pixels: np.ndarray) -> Literal["black", "white"] | None:
    """Return the color of the ground of an image, (height, width) uint8; None if its border is neither."""
    outermost = border(pixels)
    if (outermost <= DARK).mean() >= MIN_GROUND_SHARE:
        return "black"
    return "white" if (outermost >= LIGHT).mean() >= MIN_GROUND_SHARE else None


def border(values: np.ndarray) -> np.ndarray:
    """Return the outermost pixels as a vector."""
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])


def _is_gray(picture: Image.Image) -> bool:
    colors = np.asarray(picture).astype(np.int16)
    return float((colors.max(axis=2) - colors.min(axis=2)).mean()) <= MAX_MEAN_COLOR


def _undo_enlargement(gray: np.ndarray) -> np.ndarray | None:
    best, smallest = None, MAX_RESIDUAL
    values = gray.astype(np.float64)
    is_black, is_white = gray == 0, gray == 255
    for enlarge, undo in _enlargements(len(gray)):
        unclipped = values
        for _ in range(NUM_ITERATIONS):
            pixels = np.clip(undo @ unclipped @ undo.T, 0, 255)
            enlarged = enlarge @ pixels @ enlarge.T
            # Interpolation overshoots at edges. What is beyond black or white was clipped when it was stored.
            unclipped = np.where(is_black & (enlarged < 0) | is_white & (enlarged > 255), enlarged, values)
        residual = np.sqrt(np.mean((np.clip(enlarged, 0, 255) - values) ** 2))
        if residual < smallest:
            best, smallest = np.round(pixels).astype(np.uint8), residual
    return best


@lru_cache(maxsize=8)
def _enlargements(edge: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each interpolation along one axis from 28 to `edge` pixels as a matrix, (edge, 28), and its inverse."""
    identity = Image.fromarray(np.eye(IMAGE_SIZE, dtype=np.float32))
    matrices = [np.asarray(identity.resize((IMAGE_SIZE, edge), kind)).astype(np.float64) for kind in FILTERS]
    return [(matrix, np.linalg.pinv(matrix)) for matrix in matrices]
