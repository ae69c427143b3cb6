"""Random changes to training images: pure functions of seed and epoch, so that any epoch can be made again."""

import numpy as np


def order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """Give the order in which an epoch visits the images.

    Returns:
        (num_images,) a permutation of the indices.
    """
    return _generator("order", seed, epoch).permutation(num_images)


def augment(images: np.ndarray, seed: int, epoch: int, flip: bool, shift: int) -> np.ndarray:
    """Mirror and shift the images of an epoch.

    Mirroring alternates (Jordan 2024, arXiv 2404.00498): at random in the first epoch, and from then on every
    image is turned over from one epoch to the next, so that each is seen both ways in any two epochs.

    Args:
        images: (n, 28, 28) uint8, always in the same order.
        seed: of the run.
        epoch: counted from 0.
        flip: whether to mirror.
        shift: largest shift in pixels, each way; what moves in is black.

    Returns:
        (n, 28, 28) uint8, a new array if anything was asked for.
    """
    if flip:
        first = _generator("flip", seed, 0).random(len(images)) < 0.5
        images = np.where((first ^ (epoch % 2 == 1))[:, None, None], images[:, :, ::-1], images)
    if shift:
        offsets = _generator("shift", seed, epoch).integers(0, 2 * shift + 1, size=(len(images), 2))
        images = _shifted(images, offsets, shift)
    return images


def _shifted(images: np.ndarray, offsets: np.ndarray, shift: int) -> np.ndarray:
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    result = np.empty_like(images)
    for row in range(2 * shift + 1):
        for column in range(2 * shift + 1):
            chosen = np.flatnonzero((offsets == (row, column)).all(axis=1))
            result[chosen] = padded[chosen, row : row + height, column : column + width]
    return result


def dropout_seed(seed: int, epoch: int, layer: int) -> np.ndarray:
    """Give the state that a layer's random generator starts an epoch with.

    Returns:
        (2,) uint32.
    """
    return _generator("dropout", seed, epoch, layer).integers(0, 2**32, size=2, dtype=np.uint32)


STREAMS = ("order", "flip", "shift", "dropout")
"""Each kind of chance draws from a stream of its own, so that adding one does not change another."""


def _generator(stream: str, *key: int) -> np.random.Generator:
    return np.random.default_rng([STREAMS.index(stream), *key])
