"""Augmentation and selection of training images.

Every function depends on its arguments alone: the same seed and epoch give the same result in any process.
"""

from typing import NamedTuple

import numpy as np

from fmnist.config import IMAGE_SIZE


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


class CutMix(NamedTuple):
    """Which images get a rectangle of another image."""

    partners: np.ndarray
    """(m,) position of the other image in the epoch."""
    rectangles: np.ndarray
    """(m, 4) int32: first row, row after the last, first column, column after the last. An empty one mixes nothing."""


class Plan(NamedTuple):
    """The images of an epoch, and how they are augmented. Pixels are not touched before the plan is applied."""

    indices: np.ndarray
    """(m,) of the images, among all training images."""
    is_flipped: np.ndarray | None
    """(m,) bool. None without flips."""
    offsets: np.ndarray | None
    """(m, 2) row and column of the crop in the padded image, 0 to twice the largest shift. None without shifts."""
    cutmix: CutMix | None
    """None without CutMix."""


def draw_plan(
    num_images: int,
    indices: np.ndarray,
    seed: int,
    epoch: int,
    flip: bool = False,
    shift: int = 0,
    cutmix: float = 0.0,
) -> Plan:
    """Draw how the selected images of an epoch are flipped, shifted and mixed.

    The flip alternates (Jordan 2024, arXiv 2404.00498): half of the images, chosen at random, are flipped in even
    epochs, the other half in odd epochs. An image selected in every epoch is therefore seen both ways in any two
    epochs. An image selected in every second epoch is always seen the same way; docs/log.md has the alternatives tried.

    Args:
        num_images: number of all training images.
        indices: (m,) indices of the selected images. Flip and shift of an image do not depend on the other indices.
        seed: seed of the run.
        epoch: epoch number, from 0.
        flip: whether to flip horizontally.
        shift: largest shift in pixels, in each direction. Uncovered pixels become 0.
        cutmix: as in `draw_cutmix`.
    """
    is_flipped = offsets = None
    if flip:
        is_flipped_in_even_epochs = rng("flip", seed, 0).random(num_images) < 0.5
        is_flipped = (is_flipped_in_even_epochs ^ (epoch % 2 == 1))[indices]
    if shift:
        offsets = rng("shift", seed, epoch).integers(0, 2 * shift + 1, size=(num_images, 2))[indices]
    return Plan(indices, is_flipped, offsets, draw_cutmix(len(indices), cutmix, seed, epoch) if cutmix else None)


def apply_plan(images: np.ndarray, plan: Plan, shift: int) -> np.ndarray:
    """Return the images of an epoch. `augment_on_device.apply_plan` does the same under JAX, to the byte.

    Args:
        images: (n, 28, 28) uint8, all training images.
        plan: of the epoch.
        shift: largest shift in pixels.

    Returns:
        (m, 28, 28) uint8, a new array.
    """
    selected = images[plan.indices]
    if plan.is_flipped is not None:
        selected[plan.is_flipped] = selected[plan.is_flipped, :, ::-1]
    if plan.offsets is not None:
        selected = crop(selected, plan.offsets, shift)
    return selected if plan.cutmix is None else mix_images(selected, plan.cutmix)


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


def draw_cutmix(num_images: int, fraction: float, seed: int, epoch: int) -> CutMix:
    """Draw which images of an epoch get a rectangle of which other image.

    Source: Yun et al. 2019, arXiv 1905.04899. `keras.layers.CutMix` mixes every image, and its random numbers depend on
    the backend.

    Args:
        num_images: number of images of the epoch.
        fraction: expected fraction of the images that are mixed. The area of the rectangle is uniform between 0 and the
            whole image, its center is any pixel, and the part outside the image is cut off.
        seed: seed of the run.
        epoch: epoch number, from 0.
    """
    generator = rng("cutmix", seed, epoch)
    partners = generator.permutation(num_images)
    scale = np.sqrt(generator.random(num_images)) * (generator.random(num_images) < fraction)
    lengths = np.rint(IMAGE_SIZE * scale).astype(np.int32)
    starts = [generator.integers(0, IMAGE_SIZE, num_images) - lengths // 2 for _ in range(2)]
    bounds = [bound for start in starts for bound in (start, start + lengths)]
    return CutMix(partners, np.clip(np.column_stack(bounds), 0, IMAGE_SIZE).astype(np.int32))


def mix_images(images: np.ndarray, cutmix: CutMix) -> np.ndarray:
    """Replace a rectangle of some images, (m, 28, 28) uint8, by that of another image. Returns a new array."""
    pixels = np.arange(IMAGE_SIZE)
    top, bottom, left, right = (bound[:, np.newaxis] for bound in cutmix.rectangles.T)
    is_row, is_column = (pixels >= top) & (pixels < bottom), (pixels >= left) & (pixels < right)
    is_replaced = is_row[:, :, np.newaxis] & is_column[:, np.newaxis, :]
    return np.where(is_replaced, images[cutmix.partners], images)


def mix_labels(one_hot_labels: np.ndarray, cutmix: CutMix) -> np.ndarray:
    """Mix the labels of an epoch, (m, num_classes) float32, by the areas of the rectangles. Returns a new array."""
    top, bottom, left, right = cutmix.rectangles.T
    areas = ((bottom - top) * (right - left)).astype(np.float32)
    weights = (areas / np.float32(IMAGE_SIZE**2))[:, np.newaxis]
    return one_hot_labels * (1 - weights) + one_hot_labels[cutmix.partners] * weights


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
