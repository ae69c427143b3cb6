"""Statistics and figures of a data set."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fmnist import plots
from fmnist.data.dataset import Dataset, evenly_spaced
from fmnist.errors import FmnistError

HISTOGRAM_BINS = 32
MIN_PROJECTED_IMAGES = 3
MAX_PROJECTED_IMAGES = 3_000
"""Enough points to show the clusters, few enough that they do not cover each other."""


def summarize(dataset: Dataset) -> dict[str, Any]:
    """Compute the statistics of a data set.

    Returns:
        `source`; `parts`, by name (`train`, `test`): `shape`, `dtype`, `min`, `max`, `mean` and `std` (of pixels in
        [0, 1]), and `class_counts`; `classes`, a list of `label`, `mean` (of the training pixels in [0, 1]) and
        `nonzero_fraction` (of pixels); `pixel_histogram` (training images, 32 bins of equal width); `duplicates`
        (`count_duplicates`).
    """
    num_classes = len(dataset.class_names)
    return {
        "source": dataset.source,
        "parts": {
            "train": _part_statistics(dataset.train_images, dataset.train_labels, num_classes),
            "test": _part_statistics(dataset.test_images, dataset.test_labels, num_classes),
        },
        "classes": [
            {"label": name, **_class_statistics(dataset.train_images[dataset.train_labels == label])}
            for label, name in enumerate(dataset.class_names)
        ],
        "pixel_histogram": np.histogram(dataset.train_images, HISTOGRAM_BINS, range=(0, 256))[0].tolist(),
        "duplicates": count_duplicates(dataset.train_images, dataset.test_images),
    }


def _part_statistics(images: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    return {
        "shape": list(images.shape),
        "dtype": str(images.dtype),
        "min": int(images.min()),
        "max": int(images.max()),
        "mean": float(images.mean() / 255),
        "std": float(images.std() / 255),
        "class_counts": np.bincount(labels, minlength=num_classes).tolist(),
    }


def _class_statistics(images: np.ndarray) -> dict[str, float]:
    if not len(images):
        return {"mean": 0.0, "nonzero_fraction": 0.0}
    return {"mean": float(images.mean() / 255), "nonzero_fraction": float((images > 0).mean())}


def count_duplicates(train_images: np.ndarray, test_images: np.ndarray) -> dict[str, int]:
    """Count byte-identical images within training and test images, and between them.

    Args:
        train_images: (n, 28, 28) uint8.
        test_images: (m, 28, 28) uint8.

    Returns:
        `train` and `test`: copies of an earlier image; `across`: test images that are also training images.
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
        FmnistError: for fewer than three images.
    """
    from sklearn.decomposition import PCA

    if len(images) < MIN_PROJECTED_IMAGES:
        raise FmnistError(
            f"{len(images)} images cannot be projected; expected at least {MIN_PROJECTED_IMAGES}, so add images"
        )
    flat = images.reshape(len(images), -1) / np.float32(255)
    return PCA(n_components=2, svd_solver="randomized", random_state=0).fit_transform(flat)


def save_figures(dataset: Dataset, summary: dict[str, Any], folder: Path) -> list[Path]:
    """Write the figures of a data set as PNG files.

    Args:
        dataset: the data set.
        summary: the result of `summarize` for it.
        folder: is created if it is missing.

    Returns:
        The files: examples, class means, class counts, pixel histogram, projection.
    """
    images, labels, class_names = dataset.train_images, dataset.train_labels, dataset.class_names
    chosen = evenly_spaced(len(images), MAX_PROJECTED_IMAGES)
    counts = {name: part["class_counts"] for name, part in summary["parts"].items()}
    figures = {
        "examples": plots.examples(images, labels, class_names),
        "class_means": plots.class_means(images, labels, class_names),
        "class_counts": plots.class_counts(counts, class_names),
        "pixel_histogram": plots.pixel_histogram(summary["pixel_histogram"]),
        "projection": plots.projection(project(images[chosen]), labels[chosen], class_names),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]
