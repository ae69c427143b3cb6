"""Augmentation and selection of training images.

Every function depends on its arguments alone: the same seed and epoch give the same result in any process.
"""

import numpy as np


def select_hard_examples(losses: np.ndarray, num_selected: int, seed: int, epoch: int) -> np.ndarray:
    """Select the images with the highest losses for an epoch, in random order.

    Args:
        losses: (n,) loss of each image when it was last trained on. It is infinite for an image not yet trained on, so
            that every image is selected once before any is selected again. Ties are broken at random.
        num_selected: number of images to select, at most n.
        seed: seed of the run.
        epoch: epoch number, from 0.

    Returns:
        (num_selected,) distinct indices.
    """
    generator = rng("order", seed, epoch)
    shuffled = generator.permutation(len(losses))
    hardest = shuffled[np.argsort(-losses[shuffled], kind="stable")[:num_selected]]
    return generator.permutation(hardest)


def augment(
    images: np.ndarray, indices: np.ndarray, seed: int, epoch: int, flip: bool = False, shift: int = 0
) -> np.ndarray:
    """Flip and shift the selected images.

    The flip alternates (Jordan 2024, arXiv 2404.00498): half of the images, chosen at random, are flipped in even
    epochs, the other half in odd epochs. An image selected in every epoch is therefore seen both ways in any two
    epochs. An image selected in every second epoch is always seen the same way; docs/log.md has the alternatives tried.

    Args:
        images: (n, 28, 28) uint8, all training images.
        indices: (m,) indices of the selected images. The result for an image does not depend on the other indices.
        seed: seed of the run.
        epoch: epoch number, from 0.
        flip: whether to flip horizontally.
        shift: largest shift in pixels, in each direction. Uncovered pixels become 0.

    Returns:
        (m, 28, 28) uint8, a new array.
    """
    selected = images[indices]
    if flip:
        is_flipped_in_even_epochs = rng("flip", seed, 0).random(len(images)) < 0.5
        is_flipped = (is_flipped_in_even_epochs ^ (epoch % 2 == 1))[indices]
        selected[is_flipped] = selected[is_flipped, :, ::-1]
    if shift:
        offsets = rng("shift", seed, epoch).integers(0, 2 * shift + 1, size=(len(images), 2))
        selected = crop(selected, offsets[indices], shift)
    return selected


def crop(images: np.ndarray, offsets: np.ndarray, padding: int) -> np.ndarray:
    """Pad images with zeros and crop each to its former size, from its row and column in `offsets`, (n, 2)."""
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding)))
    cropped = np.empty_like(images)
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            indices = np.flatnonzero((offsets == (row, column)).all(axis=1))
            cropped[indices] = padded[indices, row : row + height, column : column + width]
    return cropped


def cutmix(
    images: np.ndarray, one_hot_labels: np.ndarray, fraction: float, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Replace a rectangle of some images by that of another image, and mix the labels by area.

    Source: Yun et al. 2019, arXiv 1905.04899. `keras.layers.CutMix` mixes every image, and its random numbers depend on
    the backend.

    Args:
        images: (n, 28, 28) uint8. The result for an image depends on its position.
        one_hot_labels: (n, num_classes) float32.
        fraction: expected fraction of the images that are mixed. The area of the rectangle is uniform between 0 and the
            whole image, its center is any pixel, and the part outside the image is cut off.
        seed: seed of the run.
        epoch: epoch number, from 0.

    Returns:
        Images and labels, new arrays of the same shapes and dtypes.
    """
    generator = rng("cutmix", seed, epoch)
    num_images, height, width = images.shape
    partners = generator.permutation(num_images)
    scale = np.sqrt(generator.random(num_images)) * (generator.random(num_images) < fraction)

    def is_covered(size: int) -> np.ndarray:
        lengths = np.rint(size * scale).astype(int)[:, np.newaxis]
        starts = generator.integers(0, size, (num_images, 1)) - lengths // 2
        return (np.arange(size) >= starts) & (np.arange(size) < starts + lengths)

    is_replaced = is_covered(height)[:, :, np.newaxis] & is_covered(width)[:, np.newaxis, :]
    weights = is_replaced.mean(axis=(1, 2), dtype=np.float32)[:, np.newaxis]
    mixed_labels = one_hot_labels * (1 - weights) + one_hot_labels[partners] * weights
    return np.where(is_replaced, images[partners], images), mixed_labels


def dropout_seed(seed: int, epoch: int, layer: int, number: int = 0) -> np.ndarray:
    """Return the state of a layer's seed generator at the start of an epoch.

    Args:
        seed: seed of the run.
        epoch: epoch number, from 0.
        layer: index of the layer in the network.
        number: of the generator, in a layer that has several.

    Returns:
        (2,) uint32.
    """
    return rng("dropout", seed, epoch, layer, *([number] if number else [])).integers(0, 2**32, size=2, dtype=np.uint32)


STREAMS = ("order", "flip", "shift", "dropout", "cutmix", "photo_augmentation", "photos", "custom")
"""Names of independent random streams. A new one goes to the end, because the position is part of the seed."""


def rng(name: str, *key: int) -> np.random.Generator:
    """Return a new random generator.

    Args:
        name: one of `STREAMS`.
        key: non-negative integers that determine the numbers drawn: the seed, the epoch, and any others.
    """
    return np.random.default_rng([STREAMS.index(name), *key])
