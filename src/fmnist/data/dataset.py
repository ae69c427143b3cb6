"""The data set: load, check, split and normalize it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.config import IMAGE_SIZE, MAX_CLASSES
from fmnist.data import download
from fmnist.data.formats import parse_images, parse_labels, read_idx
from fmnist.errors import FmnistError
from fmnist.files import read_bounded, sha256

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MAX_NAME_LENGTH = 100
"""Limit for the name of a class, in characters."""
MAX_LABELS_FILE_BYTES = 10_000
"""Limit for `labels.txt`: ten names of `MAX_NAME_LENGTH` characters need less."""
VALIDATION_FRACTION = 1 / 12
MAX_VALIDATION_IMAGES = 5_000
"""The fraction gives this number for Fashion-MNIST's 60,000 images. Larger data sets need no more to select a model."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with their labels, exactly as in the files."""

    train_images: np.ndarray
    """(n, 28, 28) uint8, 0 is the black background."""
    train_labels: np.ndarray
    """(n,) uint8, indices into `class_names`."""
    test_images: np.ndarray
    """(m, 28, 28) uint8."""
    test_labels: np.ndarray
    """(m,) uint8."""
    class_names: tuple[str, ...]
    """One to ten names, in the order of the labels."""
    sha256: dict[str, str]
    """File name (without `.gz`) to the SHA-256 of the decompressed bytes."""
    source: str
    """Where the data came from, for people."""
    folder: str | None = None
    """Absolute path of the folder that the user named; None for Fashion-MNIST itself."""

    @property
    def is_fashion_mnist(self) -> bool:
        """Whether every byte is Fashion-MNIST's, as opposed to another data set of the same format."""
        return self.sha256 == download.FILES


@dataclass(frozen=True, eq=False)
class Split:
    """The training images of a data set, split into training and validation."""

    train_images: np.ndarray
    """(n, 28, 28) uint8."""
    train_labels: np.ndarray
    """(n,) uint8."""
    val_images: np.ndarray
    """(m, 28, 28) uint8; m is 0 for a run on all training images."""
    val_labels: np.ndarray
    """(m,) uint8."""


def load(folder: str | Path | None = None) -> Dataset:
    """Load Fashion-MNIST, downloading it if necessary, or a data set of the same format from a folder.

    Without a folder, the environment variable FMNIST_DATA names one. Without both, Fashion-MNIST is looked for in
    Keras' cache, Debian's folder, Keras' download and Debian's package. Every file is verified by the SHA-256 of its
    decompressed bytes. Verified files are stored where `keras.datasets.fashion_mnist.load_data()` looks, so Keras finds
    them without a network.

    Args:
        folder: contains the four IDX files under their usual names, gzipped or plain, with images of 28x28 and at most
            ten classes. `labels.txt` may contain the names of the classes, one per line.

    Returns:
        The data set; for Fashion-MNIST 60,000 training and 10,000 test images.

    Raises:
        FmnistError: if no source has the data, or a file in the folder is missing or damaged.
    """
    return load_from(folder or os.environ.get("FMNIST_DATA") or None)


def load_from(folder: str | Path | None) -> Dataset:
    """Load a data set as `load` does, but ignore FMNIST_DATA: None is always Fashion-MNIST."""
    if folder:
        return _load_folder(Path(folder).expanduser())
    contents, source = download.load_verified()
    arrays = _parse({name: Path(name) for name in contents}, contents)
    return Dataset(**arrays, class_names=CLASS_NAMES, sha256=dict(download.FILES), source=source, folder=None)


def _load_folder(folder: Path) -> Dataset:
    if not folder.is_dir():
        raise FmnistError(f"no data folder {folder}; expected one with the files {', '.join(download.FILES)}")
    paths = {name: _find_file(folder, name) for name in download.FILES}
    contents = {name: read_idx(path) for name, path in paths.items()}
    arrays = _parse(paths, contents)
    hashes = {name: sha256(content) for name, content in contents.items()}
    num_classes = 1 + max(int(arrays[name].max(initial=0)) for name in ("train_labels", "test_labels"))
    class_names = CLASS_NAMES if hashes == download.FILES else _read_class_names(folder, num_classes)
    return Dataset(**arrays, class_names=class_names, sha256=hashes, source=str(folder), folder=str(folder.absolute()))


def _find_file(folder: Path, name: str) -> Path:
    gzipped, plain = folder / f"{name}.gz", folder / name
    return plain if plain.exists() and not gzipped.exists() else gzipped


def _parse(paths: dict[str, Path], contents: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Return the arrays of both parts by their names in `Dataset`."""
    arrays: dict[str, np.ndarray] = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images_name, labels_name = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        images = parse_images(paths[images_name], contents[images_name])
        labels = parse_labels(paths[labels_name], contents[labels_name])
        if len(images) != len(labels):
            raise FmnistError(
                f"{paths[images_name]} contains {len(images)} images, but {paths[labels_name]} contains {len(labels)} "
                "labels; expected equal numbers"
            )
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    return arrays


def _read_class_names(folder: Path, num_classes: int) -> tuple[str, ...]:
    path = folder / "labels.txt"
    if not os.path.lexists(path):
        return tuple(f"class {index}" for index in range(num_classes))
    content = read_bounded(path, MAX_LABELS_FILE_BYTES, "write one class name per line", follow_links=True)
    try:
        names = tuple(line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise FmnistError(f"{path} cannot be read as text ({error}); save it as UTF-8") from error
    if len(set(names)) < len(names):
        raise FmnistError(f"{path} has the same name twice; expected a different name for each class")
    if not num_classes <= len(names) <= MAX_CLASSES:
        raise FmnistError(f"{path} has {len(names)} names; expected {num_classes} to {MAX_CLASSES}")
    if not are_class_names(names):
        raise FmnistError(
            f"{path} has a name with control characters or more than {MAX_NAME_LENGTH} characters; change it"
        )
    return names


def are_class_names(value: Any) -> bool:
    """Check that a value is a list or tuple of one to ten different names that any terminal or page can display."""
    return (
        isinstance(value, list | tuple)
        and 1 <= len(value) <= MAX_CLASSES
        and all(
            isinstance(name, str) and name.strip() and len(name) <= MAX_NAME_LENGTH and name.isprintable()
            for name in value
        )
        and len(set(value)) == len(value)
    )


def check_trainable(dataset: Dataset) -> None:
    """Check that a network can be trained and evaluated on a data set.

    Raises:
        FmnistError: if all training images are of one class, or a class of the test images has no training image.
    """
    train_classes, test_classes = (np.unique(labels) for labels in (dataset.train_labels, dataset.test_labels))
    if len(train_classes) < 2:
        raise FmnistError(
            f"all training images from {dataset.source} are of the class "
            f"{dataset.class_names[train_classes[0]]!r}; expected at least two classes"
        )
    if len(missing := np.setdiff1d(test_classes, train_classes)):
        names = ", ".join(dataset.class_names[label] for label in missing)
        raise FmnistError(
            f"the data from {dataset.source} has test images but no training image of {names}; add training images or "
            "remove these test images"
        )


def split_dataset(dataset: Dataset, seed: int, full: bool = False) -> Split:
    """Split the training images into training and validation, stratified by class.

    Args:
        dataset: a loaded data set.
        seed: seed of the split.
        full: whether to train on all images, without validation.

    Returns:
        The split. Validation has 5,000 images or a twelfth, whichever is fewer, and none with `full`.

    Raises:
        FmnistError: if there are too few images to have each class in both parts.
    """
    images, labels = dataset.train_images, dataset.train_labels
    if full:
        return Split(images, labels, images[:0], labels[:0])
    from sklearn.model_selection import train_test_split

    num_validation = min(MAX_VALIDATION_IMAGES, int(len(labels) * VALIDATION_FRACTION))
    try:
        train, val = train_test_split(
            np.arange(len(labels)), test_size=num_validation, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise FmnistError(
            f"{len(labels)} training images are too few for a validation part; expected at least two per class and at "
            "least one per class in a twelfth of them; use --full"
        ) from error
    return Split(images[train], labels[train], images[val], labels[val])


def normalize(images: np.ndarray) -> np.ndarray:
    """Convert stored pixels to the input of the networks.

    Args:
        images: (n, 28, 28) uint8, 0 to 255.

    Returns:
        (n, 28, 28, 1) float32, 0.0 to 1.0; the last axis is the channel.

    Raises:
        FmnistError: for another shape or dtype.
    """
    check_images(images)
    return images[..., np.newaxis].astype(np.float32) / np.float32(255)


def check_images(images: np.ndarray) -> None:
    """Check that images are a NumPy array, (n, 28, 28) uint8.

    Raises:
        FmnistError: otherwise.
    """
    if not isinstance(images, np.ndarray):
        raise FmnistError(f"images are a {type(images).__name__}; expected a NumPy array, uint8 of shape (n, 28, 28)")
    if images.dtype != np.uint8 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise FmnistError(f"images are {images.dtype} of shape {images.shape}; expected uint8 of shape (n, 28, 28)")


def evenly_spaced(num_images: int, max_images: int) -> np.ndarray:
    """Return indices spread evenly over all images, because files may be sorted by class.

    Returns:
        (min(num_images, max_images),) indices in ascending order, from 0 to `num_images` - 1.
    """
    return np.linspace(0, num_images - 1, min(num_images, max_images)).astype(int)
