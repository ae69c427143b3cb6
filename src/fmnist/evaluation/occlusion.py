"""Heat maps: which parts of an image a prediction depends on."""

import numpy as np

from fmnist.config import IMAGE_SIZE
from fmnist.inference.classifier import Classifier

PATCH_SIZE = 6
"""Width and height of what is covered at a time, in pixels: large enough to hide a sleeve, a collar or a heel."""
STRIDE = 3
"""Pixels between neighboring patches: half a patch, so that four patches cover each pixel."""


def occlusion_maps(classifier: Classifier, images: np.ndarray, class_indices: np.ndarray) -> np.ndarray:
    """Compute how much the probability of a class falls when a part of the image is covered in black.

    Source: Zeiler and Fergus 2014, arXiv 1311.2901.

    Args:
        classifier: the model.
        images: (n, 28, 28) uint8.
        class_indices: (n,) the class of each image whose probability is examined.

    Returns:
        (n, 28, 28) float64, the mean fall over the patches that cover a pixel, from -1 to 1. It is positive where the
        image speaks for the class, and negative where it speaks against it.
    """
    starts = range(PATCH_SIZE // 2 - PATCH_SIZE, IMAGE_SIZE, STRIDE)
    position = np.arange(IMAGE_SIZE)
    covers = np.array([(position >= start) & (position < start + PATCH_SIZE) for start in starts])
    patches = (covers[:, np.newaxis, :, np.newaxis] & covers[np.newaxis, :, np.newaxis, :]).reshape(
        -1, IMAGE_SIZE, IMAGE_SIZE
    )
    covered = np.where(patches, 0, images[:, np.newaxis]).reshape(-1, IMAGE_SIZE, IMAGE_SIZE).astype(np.uint8)
    rows = np.arange(len(images))
    before = classifier.predict(images)[rows, class_indices]
    after = classifier.predict(covered).reshape(len(images), len(patches), len(classifier.class_names))
    falls = (before[:, np.newaxis] - after[rows, :, class_indices]).astype(np.float64)
    return np.einsum("np,pij->nij", falls, patches.astype(np.float64)) / patches.sum(axis=0)
