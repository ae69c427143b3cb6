"""Random changes to training images: pure functions of their arguments, so that any epoch can be made again."""

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
    images: np.ndarray, indices: np.ndarray, seed: int, epoch: int, flip: bool = False, shift: int = 0
) -> np.ndarray:
    """Mirror and shift the images that an epoch goes through.

    Mirroring alternates (Jordan 2024, arXiv 2404.00498): at random in the first epoch, and from then on every
    image is turned over from one epoch to the next, so that one that is wanted each time is seen both ways in any two
    epochs. One that is wanted every second time is always seen the same way (docs/log.md has what else was tried).

    Args:
        images: (n, 28, 28) uint8, all that there are.
        indices: (m,) of the images that are wanted; what happens to an image does not depend on the others.
        seed: of the run.
        epoch: counted from 0.
        flip: whether to mirror.
        shift: largest shift in pixels, each way; what moves in is black.

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


def cutmix(
    images: np.ndarray, one_hot_labels: np.ndarray, share: float, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a rectangle of another image into some, and mix their labels by area (Yun et al. 2019, arXiv 1905.04899).

    Keras has a layer for it, which mixes every image, and by the chance of its backend: JAX would train on other
    images than TensorFlow.

    Args:
        images: (n, 28, 28) uint8, in the order of the epoch, on which chance depends.
        one_hot_labels: (n, classes) float32.
        share: of the images that get a rectangle. Its share of the area is uniform from 0 to 1; its centre may be any
            pixel, and what lies outside is lost.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        New arrays of the same shapes and types.
    """
    generator = stream("cutmix", seed, epoch)
    num_images, height, width = images.shape
    partners = generator.permutation(num_images)
    scale = np.sqrt(generator.random(num_images)) * (generator.random(num_images) < share)

    def is_covered(size: int) -> np.ndarray:
        lengths = np.rint(size * scale).astype(int)[:, np.newaxis]
        starts = generator.integers(0, size, (num_images, 1)) - lengths // 2
        return (np.arange(size) >= starts) & (np.arange(size) < starts + lengths)

    is_pasted = is_covered(height)[:, :, np.newaxis] & is_covered(width)[:, np.newaxis, :]
    weights = is_pasted.mean(axis=(1, 2), dtype=np.float32)[:, np.newaxis]
    mixed_labels = one_hot_labels * (1 - weights) + one_hot_labels[partners] * weights
    return np.where(is_pasted, images[partners], images), mixed_labels


def dropout_seed(seed: int, epoch: int, layer: int) -> np.ndarray:
    """Give the state that a layer's random generator starts an epoch with.

    Returns:
        (2,) uint32.
    """
    return stream("dropout", seed, epoch, layer).integers(0, 2**32, size=2, dtype=np.uint32)


STREAMS = ("order", "flip", "shift", "dropout", "cutmix", "photolike")
"""Each kind of chance draws from a stream of its own, so that adding one does not change another."""


def stream(name: str, *key: int) -> np.random.Generator:
    """Begin a stream of chance.

    Args:
        name: one of `STREAMS`.
        key: seed, epoch and whatever else it follows from.
    """
    return np.random.default_rng([STREAMS.index(name), *key])
