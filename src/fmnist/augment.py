"""Random changes to training images: pure functions of seed and epoch, so that any epoch can be made again."""

import numpy as np


def visit(losses: np.ndarray, num_visited: int, seed: int, epoch: int) -> np.ndarray:
    """Choose the images that an epoch goes through, the hardest, and their order.

    Args:
        losses: (n,) how hard each image was when it was last gone through; infinite for one that never was, so that
            no image comes again before each has come. Equals are drawn by lot.
        num_visited: how many to go through, at most n.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        (num_visited,) different indices.
    """
    generator = stream("order", seed, epoch)
    lot = generator.permutation(len(losses))
    hardest = lot[np.argsort(-losses[lot], kind="stable")[:num_visited]]
    return generator.permutation(hardest)


def augment(
    images: np.ndarray, indices: np.ndarray, seed: int, epoch: int, flip: bool = False, shift: int = 0, cutout: int = 0
) -> np.ndarray:
    """Mirror and shift the images that an epoch goes through, and black out a part of each.

    Mirroring alternates (Jordan 2024, arXiv 2404.00498): at random in the first epoch, and from then on every
    image is turned over from one epoch to the next, so that one that is wanted each time is seen both ways in any two
    epochs. One that is wanted every second time is always seen the same way (LOG.md has what else was tried).

    Args:
        images: (n, 28, 28) uint8, all that there are.
        indices: (m,) of the images that are wanted; what happens to an image does not depend on the others.
        seed: of the run.
        epoch: counted from 0.
        flip: whether to mirror.
        shift: largest shift in pixels, each way; what moves in is black.
        cutout: side in pixels of the square that is blacked out; its centre may be any pixel, so that a part of it
            may lie outside (DeVries & Taylor 2017, arXiv 1708.04552).

    Returns:
        (m, 28, 28) uint8, a new array.
    """
    chosen = images[indices]
    if flip:
        is_first_mirrored = stream("flip", seed, 0).random(len(images)) < 0.5
        is_mirrored = (is_first_mirrored ^ (epoch % 2 == 1))[indices]
        chosen[is_mirrored] = chosen[is_mirrored, :, ::-1]
    if shift:
        offsets = stream("shift", seed, epoch).integers(0, 2 * shift + 1, size=(len(images), 2))
        chosen = _shifted(chosen, offsets[indices], shift)
    if cutout:
        height, width = images.shape[1:]
        centres = stream("cutout", seed, epoch).integers(0, (height, width), size=(len(images), 2))[indices]
        is_cut_row, is_cut_column = (
            _is_within(np.arange(size) - centres[:, axis, np.newaxis] + cutout // 2, cutout)
            for axis, size in enumerate((height, width))
        )
        chosen[is_cut_row[:, :, np.newaxis] & is_cut_column[:, np.newaxis, :]] = 0
    return chosen


def _shifted(images: np.ndarray, offsets: np.ndarray, shift: int) -> np.ndarray:
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    result = np.empty_like(images)
    for row in range(2 * shift + 1):
        for column in range(2 * shift + 1):
            chosen = np.flatnonzero((offsets == (row, column)).all(axis=1))
            result[chosen] = padded[chosen, row : row + height, column : column + width]
    return result


def _is_within(places: np.ndarray, length: int) -> np.ndarray:
    return (places >= 0) & (places < length)


def dropout_seed(seed: int, epoch: int, layer: int) -> np.ndarray:
    """Give the state that a layer's random generator starts an epoch with.

    Returns:
        (2,) uint32.
    """
    return stream("dropout", seed, epoch, layer).integers(0, 2**32, size=2, dtype=np.uint32)


STREAMS = ("order", "flip", "shift", "dropout", "cutout", "photolike")
"""Each kind of chance draws from a stream of its own, so that adding one does not change another."""


def stream(name: str, *key: int) -> np.random.Generator:
    """Begin a stream of chance.

    Args:
        name: one of `STREAMS`.
        key: seed, epoch and whatever else it follows from.
    """
    return np.random.default_rng([STREAMS.index(name), *key])
