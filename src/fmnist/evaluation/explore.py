"""What is in a data set: tables as plain values, figures as PNG files."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fmnist import plots
from fmnist.data.dataset import Dataset
from fmnist.errors import FmnistError

MIN_PROJECTED_IMAGES = 3
HISTOGRAM_BINS = 32
PROJECTED_IMAGES = 3_000
"""Enough to see the clouds, few enough to see through them."""


def summarise(dataset: Dataset) -> dict[str, Any]:
    """Describe a data set.

    Returns:
        `source`; `parts`, by name (`train`, `test`): `shape`, `dtype`, `min`, `max`, `mean`, `std` (of pixels in
        [0, 1]) and `class_counts`; `classes`, a list of `label`, `mean` (of its training pixels in [0, 1]) and
        `ink` (share of pixels above 0); `pixel_histogram` (training, 32 bins of equal width); `duplicates`, images
        that occur again byte by byte: `train`, `test`, `across` (test images that are also in training).
    """
    parts = {
        "train": (dataset.train_images, dataset.train_labels),
        "test": (dataset.test_images, dataset.test_labels),
    }
    return {
        "source": dataset.source,
        "parts": {
            name: _describe(images, labels, len(dataset.class_names)) for name, (images, labels) in parts.items()
        },
        "classes": [
            {"label": name, **_ink(dataset.train_images[dataset.train_labels == label])}
            for label, name in enumerate(dataset.class_names)
        ],
        "pixel_histogram": np.histogram(dataset.train_images, HISTOGRAM_BINS, range=(0, 256))[0].tolist(),
        "duplicates": count_duplicates(dataset.train_images, dataset.test_images),
    }


def _describe(images: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    return {
        "shape": list(images.shape),
        "dtype": str(images.dtype),
        "min": int(images.min()),
        "max": int(images.max()),
        "mean": float(images.mean() / 255),
        "std": float(images.std() / 255),
        "class_counts": np.bincount(labels, minlength=num_classes).tolist(),
    }


def _ink(images: np.ndarray) -> dict[str, float]:
    if not len(images):
        return {"mean": 0.0, "ink": 0.0}
    return {"mean": float(images.mean() / 255), "ink": float((images > 0).mean())}


def count_duplicates(train_images: np.ndarray, test_images: np.ndarray) -> dict[str, int]:
    """Count images that occur again, byte by byte, within the parts and across them.

    Args:
        train_images: (n, 28, 28) uint8.
        test_images: (m, 28, 28) uint8.

    Returns:
        `train` and `test`: images beyond the first of their kind; `across`: test images that training holds too.
    """
    train, test = (Counter(image.tobytes() for image in images) for images in (train_images, test_images))
    return {
        "train": len(train_images) - len(train),
        "test": len(test_images) - len(test),
        "across": sum(count for image, count in test.items() if image in train),
    }


def project(images: np.ndarray) -> np.ndarray:
    """Project images on their first two principal components.

    Args:
        images: (n, 28, 28) uint8.

    Returns:
        (n, 2) float.

    Raises:
        FmnistError: if there are fewer than three.
    """
    from sklearn.decomposition import PCA

    if len(images) < MIN_PROJECTED_IMAGES:
        raise FmnistError(f"{len(images)} images cannot be projected; expected at least {MIN_PROJECTED_IMAGES}")
    flat = images.reshape(len(images), -1) / np.float32(255)
    return PCA(n_components=2, svd_solver="randomized", random_state=0).fit_transform(flat)


def save_figures(dataset: Dataset, summary: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the data set into PNG files.

    Args:
        dataset: what is drawn.
        summary: what `summarise` gave for it.
        folder: is made if it is missing.

    Returns:
        The files: examples, class means, class counts, pixel histogram, projection.
    """
    images, labels, class_names = dataset.train_images, dataset.train_labels, dataset.class_names
    counts = {name: part["class_counts"] for name, part in summary["parts"].items()}
    figures = {
        "examples": plots.examples(images, labels, class_names),
        "class_means": plots.class_means(images, labels, class_names),
        "class_counts": plots.class_counts(counts, class_names),
        "pixel_histogram": plots.pixel_histogram(summary["pixel_histogram"]),
        "projection": plots.projection(project(images[:PROJECTED_IMAGES]), labels[:PROJECTED_IMAGES], class_names),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]
