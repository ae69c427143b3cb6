"""Photos as training examples: which ones, how they are augmented, and a loss for labels of several classes."""

from typing import Any

import keras
import numpy as np

from fmnist.data.photos import PhotoSet
from fmnist.training import augment
from fmnist.training.warp import BACKGROUND_MAX, Warp, per_image, warp_and_fit

ops = keras.ops

ANGLE_STD = np.deg2rad(4)
"""Radians. Photos vary by themselves; what is added is slight."""
LOG_ASPECT_STD = 0.08
SHEAR_STD = 0.04
BEND_STD = 0.03
MAX_TAPER = 0.05
CONTRAST_RANGE = (0.8, 1.2)
MAX_BRIGHTNESS_CHANGE = 20
"""Gray levels."""
MAX_SHIFT = 2
"""Pixels."""
CHUNK_SIZE = 1_000
"""Images warped at once, see `photo_augment.CHUNK_SIZE`."""
EPSILON = 1e-9


def draw_photos(photos: PhotoSet, num_photos: int, seed: int, epoch: int, flip: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw photos for an epoch, rare categories more often than their share, and augment them.

    Args:
        photos: to draw from.
        num_photos: how many.
        seed: seed of the run.
        epoch: epoch number, from 0.
        flip: whether to mirror half of them.

    Returns:
        (num_photos, 28, 28) uint8, and their (num_photos,) indices.
    """
    rng = augment.rng("photos", seed, epoch, 0)
    _, category, counts = np.unique(photos.category, return_inverse=True, return_counts=True)
    weights = counts[category] ** -0.5
    indices = rng.choice(len(photos.images), num_photos, p=weights / weights.sum())
    images = photos.images[indices]
    if flip:
        is_flipped = rng.random(num_photos) < 0.5
        images[is_flipped] = images[is_flipped, :, ::-1]
    chunks = range(0, num_photos, CHUNK_SIZE)
    warped = np.concatenate([_warp(images[start : start + CHUNK_SIZE], rng) for start in chunks])
    shaded = warped * per_image(rng.uniform(*CONTRAST_RANGE, num_photos))
    shaded += per_image(rng.uniform(-MAX_BRIGHTNESS_CHANGE, MAX_BRIGHTNESS_CHANGE, num_photos))
    shaded = np.where(warped > BACKGROUND_MAX / 2, np.clip(np.rint(shaded), 1, 255), 0).astype(np.uint8)
    return augment.crop(shaded, rng.integers(0, 2 * MAX_SHIFT + 1, (num_photos, 2)), MAX_SHIFT), indices


def _warp(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Warp some images slightly, (n, 28, 28) float32."""
    num_images = len(images)
    warp = Warp(
        angle=rng.normal(0, ANGLE_STD, num_images),
        log_aspect=rng.normal(0, LOG_ASPECT_STD, num_images),
        shear=rng.normal(0, SHEAR_STD, num_images),
        bend=rng.normal(0, BEND_STD, num_images),
        taper=rng.uniform(-MAX_TAPER, MAX_TAPER, num_images),
    )
    return warp_and_fit(images.astype(np.float32), warp)


def classes_with_photos(photos: PhotoSet) -> np.ndarray:
    """Return which classes have photos that are of this class alone, (num_classes,) bool.

    A shoe, for which sandal, sneaker and ankle boot count as correct, does not say what tells them apart.
    """
    is_single = photos.accepted.sum(axis=1) == 1
    found: np.ndarray = photos.accepted[is_single].any(axis=0)
    return found


def one_hot_photos(accepted: np.ndarray) -> np.ndarray:
    """Return labels with a column for "none of the classes".

    Args:
        accepted: (n, classes) bool, the classes that count as correct.

    Returns:
        (n, classes + 1) float32. Where several classes count, each has a 1; `AnyOfCrossentropy` takes such rows.
    """
    return np.column_stack([accepted, ~accepted.any(axis=1)]).astype(np.float32)


@keras.saving.register_keras_serializable("fmnist")
class AnyOfCrossentropy(keras.losses.CategoricalCrossentropy):
    """Cross-entropy where a label can allow several classes: the negative logarithm of the sum of their probabilities.

    Such a label has a 1 for each of them. Its gradient is that of the cross-entropy with the probabilities of these
    classes, scaled to a sum of 1, as the label.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss of each row."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        joint = y_true * y_pred
        posterior = ops.stop_gradient(joint / (ops.sum(joint, axis=-1, keepdims=True) + EPSILON))
        allows_several = ops.sum(y_true, axis=-1, keepdims=True) > 1.5
        return super().call(ops.where(allows_several, posterior, y_true), y_pred)
