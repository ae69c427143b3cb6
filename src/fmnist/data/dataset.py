"""The data set: load, check, split and normalize it."""

import gzip
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fmnist.config import IMAGE_SIZE, MAX_CLASSES
from fmnist.data import download
from fmnist.data.arrays import as_images, as_labels, check_lengths, idx_content, idx_sha256
from fmnist.data.assemble import Parts, assemble
from fmnist.data.formats import parse_images, parse_labels
from fmnist.data.names import check_names, write_names
from fmnist.data.sources import CANONICAL, read_blocks
from fmnist.errors import FmnistError, type_of
from fmnist.files import as_path, write_atomic

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
VALIDATION_FRACTION = 1 / 12
MAX_VALIDATION_IMAGES = 5_000
"""The fraction gives this number for Fashion-MNIST's 60,000 images. Larger data sets need no more to select a model."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with their labels, exactly as in the files.

    Arrays of other integer types, images (n, 28, 28, 1) or (n, 784) and labels (n, 1) are converted.

    Raises:
        FmnistError: for images or labels that are ambiguous, a label without a name, or unsuitable names.
    """

    train_images: np.ndarray
    """(n, 28, 28) uint8, 0 is the black background."""
    train_labels: np.ndarray
    """(n,) uint8, indices into `class_names`."""
    test_images: np.ndarray
    """(m, 28, 28) uint8."""
    test_labels: np.ndarray
    """(m,) uint8."""
    class_names: tuple[str, ...]
    """At most `MAX_CLASSES` names, in the order of the labels."""
    source: str = "memory"
    """Where the data came from, for people."""
    path: str | None = None
    """Absolute path that the user named; None for Fashion-MNIST itself, and for arrays in memory."""

    def __post_init__(self) -> None:
        """Check and convert the arrays and the names."""
        object.__setattr__(self, "class_names", check_names(self.class_names, f"the data from {self.source}"))
        num_classes = len(self.class_names)
        if not 1 <= num_classes <= MAX_CLASSES:
            raise FmnistError(f"the data from {self.source} has {num_classes} classes; expected 1 to {MAX_CLASSES}")
        for part in ("train", "test"):
            images_name, labels_name = (f"the array {part}_{kind} from {self.source}" for kind in ("images", "labels"))
            images = getattr(self, f"{part}_images")
            if not (isinstance(images, np.ndarray) and images.shape == (0, IMAGE_SIZE, IMAGE_SIZE)):
                images = as_images(images, images_name)
            labels = as_labels(getattr(self, f"{part}_labels"), labels_name)
            if len(images):  # a part that is not used may drop its images, which are most of the memory
                check_lengths(images, labels, images_name, labels_name)
            if (largest := int(labels.max(initial=0))) >= num_classes:
                raise FmnistError(
                    f"{labels_name} contains the label {largest}, but there are {num_classes} class names; expected a "
                    "name for each class, in the order of the labels, which count from 0"
                )
            object.__setattr__(self, f"{part}_images", images)
            object.__setattr__(self, f"{part}_labels", labels)

    def __repr__(self) -> str:
        """Describe the data set in a line."""
        return (
            f"Dataset({len(self.train_labels):,} training and {len(self.test_labels):,} test images of "
            f"{len(self.class_names)} classes, from {self.source})"
        )

    @cached_property
    def sha256(self) -> dict[str, str]:
        """Name of each of Fashion-MNIST's files to the SHA-256 of the arrays as such a file, whatever they came in."""
        arrays = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        return {name: idx_sha256(array) for name, array in zip(download.FILES, arrays, strict=True)}

    @property
    def is_fashion_mnist(self) -> bool:
        """Whether every pixel and label is Fashion-MNIST's."""
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


def load(path: str | Path | None = None) -> Dataset:
    """Load Fashion-MNIST, downloading it if necessary, or another data set from a folder or file.

    Without a path, the environment variable FMNIST_DATA names one. Without both, Fashion-MNIST is looked for in
    Keras' cache, Debian's folder, Keras' download and Debian's package. Every file is verified by the SHA-256 of its
    decompressed bytes. Verified files are stored where `keras.datasets.fashion_mnist.load_data()` looks, so Keras finds
    them without a network.

    Args:
        path: a folder, or one file that stands for its data set. It has gray images of 28x28 in IDX files (as MNIST,
            KMNIST, EMNIST and QMNIST have them, compressed or not), npy or npz files, csv files with a label and 784
            pixels a row, or parquet files of Hugging Face; or pictures of any size in a folder for each class.
            `labels.txt` may contain the names of the classes, one per line. Where there is no test part, a quarter of
            each class is held out as one.

    Returns:
        The data set; for Fashion-MNIST 60,000 training and 10,000 test images.

    Raises:
        FmnistError: if no source has the data, or something at the path is missing, damaged or ambiguous.
    """
    return load_from(path or os.environ.get("FMNIST_DATA") or None)


def load_from(path: str | Path | None) -> Dataset:
    """Load a data set as `load` does, but ignore FMNIST_DATA: None is always Fashion-MNIST."""
    if path:
        return _load_path(Path(os.path.expanduser(as_path(path, "the path of the data"))))
    contents, source = download.load_verified()
    images, labels = (
        [parse(Path(name), contents[name]) for name in contents if kind in name]
        for kind, parse in (("images", parse_images), ("labels", parse_labels))
    )
    return Dataset(images[0], labels[0], images[1], labels[1], CLASS_NAMES, source=source)


def _load_path(path: Path) -> Dataset:
    try:
        blocks, folder = read_blocks(path)
    except PermissionError as error:
        raise FmnistError(
            f"{error.filename or path} cannot be read (Permission denied); change its permissions"
        ) from error
    parts, names = assemble(path, folder, blocks)
    dataset = Dataset(
        *parts["train"], *parts["test"], names or _numbered(parts), source=str(path), path=str(path.absolute())
    )
    return replace(dataset, class_names=CLASS_NAMES) if names is None and dataset.is_fashion_mnist else dataset


def _numbered(parts: Parts) -> tuple[str, ...]:
    """Return names for the classes of data that has no names."""
    return tuple(f"class {index}" for index in range(1 + max(int(labels.max()) for _, labels in parts.values())))


def check_is_dataset(dataset: object) -> None:
    """Raise an `FmnistError` if an argument `dataset` is neither a `Dataset` nor None."""
    if dataset is not None and not isinstance(dataset, Dataset):
        raise FmnistError(
            f"dataset is {type_of(dataset)}; expected a fmnist.Dataset, as from fmnist.load() or "
            "fmnist.Dataset(train_images, train_labels, test_images, test_labels, class_names)"
        )


def check_trainable(dataset: Dataset) -> None:
    """Check that a network can be trained and evaluated on a data set.

    Raises:
        FmnistError: if a part has no images, all training images are of one class, or a class has no training image.
    """
    for part, images in (("training", dataset.train_images), ("test", dataset.test_images)):
        if not len(images):
            raise FmnistError(f"the data from {dataset.source} contains no images for {part}; expected at least one")
    counts = np.bincount(dataset.train_labels, minlength=len(dataset.class_names))
    if (counts > 0).sum() < 2:
        raise FmnistError(
            f"all training images from {dataset.source} are of the class "
            f"{dataset.class_names[counts.argmax()]!r}; expected at least two classes"
        )
    if missing := [dataset.class_names[label] for label in np.flatnonzero(counts == 0)]:
        found = ", ".join(map(str, np.flatnonzero(counts)))
        raise FmnistError(
            f"the data from {dataset.source} has no training image of {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}: its training labels are {found}; add training images, or number "
            "the classes from 0 without gaps"
        )


def write_folder(dataset: Dataset, folder: Path) -> list[Path]:
    """Write a data set as gzipped IDX files under the usual names, and `labels.txt`.

    Args:
        dataset: the data set.
        folder: a new or empty folder.

    Returns:
        The files.

    Raises:
        FmnistError: if the folder is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FmnistError(f"{folder} is not empty; expected a new folder for the data, so choose another name")
    for (part, kind), name in CANONICAL.items():
        content = idx_content(getattr(dataset, f"{part}_{kind}"))
        write_atomic(folder / f"{name}.gz", gzip.compress(content, mtime=0))
    write_names(folder, dataset.class_names)
    return sorted(folder.iterdir())


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
            "least one per class in a twelfth of them; use --full, in Python full=True"
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
