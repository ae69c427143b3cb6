"""The data set: loaded, verified, split and transformed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.data import download as sources
from fmnist.data import formats as idx
from fmnist.errors import FmnistError

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MAX_CLASSES = 10
MAX_NAME = 100
"""Characters in the name of a class."""
MAX_VALIDATION_IMAGES = 5_000
VALIDATION_SHARE = 1 / 12
MAX_LABELS_BYTES = 10_000
"""Of `labels.txt`: ten names take far less."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels in two parts, as they are in the files."""

    train_images: np.ndarray
    """(n, 28, 28) uint8, 0 is the black ground."""
    train_labels: np.ndarray
    """(n,) uint8, an index into `class_names`."""
    test_images: np.ndarray
    """As `train_images`."""
    test_labels: np.ndarray
    """As `train_labels`."""
    class_names: tuple[str, ...]
    """The name of each class, at most ten."""
    sha256: dict[str, str]
    """File name to the SHA-256 of its decompressed bytes."""
    source: str
    """Where it came from, for people."""
    folder: str | None = None
    """The folder that was named for it, absolute; None is Fashion-MNIST itself."""

    @property
    def is_fashion_mnist(self) -> bool:
        """Whether it is Fashion-MNIST to the byte, and not another set of the same form."""
        return self.sha256 == sources.FILES


@dataclass(frozen=True, eq=False)
class Split:
    """The training images of a data set, parted for training and validation."""

    train_images: np.ndarray
    """(n, 28, 28) uint8."""
    train_labels: np.ndarray
    """(n,) uint8."""
    val_images: np.ndarray
    """(m, 28, 28) uint8; m is 0 for a run on all training images."""
    val_labels: np.ndarray
    """(m,) uint8."""


def load(folder: str | Path | None = None) -> Dataset:
    """Load Fashion-MNIST, fetching it if need be, or a data set of the same format from a folder.

    Without a folder (and without one in the environment variable FMNIST_DATA) it is looked for in Keras'
    cache, in Debian's folder, at Keras' download and in Debian's package. Every file is verified by the SHA-256
    of its decompressed bytes, and what was verified is left where `keras.datasets.fashion_mnist.load_data()`
    looks, so that Keras finds it without a network.

    Args:
        folder: holds the four IDX files under their usual names, gzipped or plain, n images of 28x28, up to
            ten classes, whose names may stand in `labels.txt`, one a line. It is checked for form.

    Returns:
        The data set, (60000, 28, 28) and (10000, 28, 28) for Fashion-MNIST itself.

    Raises:
        FmnistError: if it cannot be had, or a file in the folder is not what it should be.
    """
    return load_from(folder or os.environ.get("FMNIST_DATA") or None)


def load_from(folder: str | Path | None) -> Dataset:
    """Load as `load` does, whatever the environment says: None is Fashion-MNIST itself."""
    if folder:
        return _load_folder(Path(folder).expanduser())
    contents, source = sources.load_verified()
    arrays = _arrays({name: Path(name) for name in contents}, contents)
    return Dataset(**arrays, class_names=CLASS_NAMES, sha256=dict(sources.FILES), source=source, folder=None)


def _load_folder(folder: Path) -> Dataset:
    if not folder.is_dir():
        raise FmnistError(f"no data folder {folder}; expected one that holds {', '.join(sources.FILES)}")
    paths = {name: _find(folder, name) for name in sources.FILES}
    contents = {name: idx.read(path) for name, path in paths.items()}
    arrays = _arrays(paths, contents)
    hashes = {name: idx.sha256(content) for name, content in contents.items()}
    num_classes = 1 + max(int(arrays[name].max(initial=0)) for name in ("train_labels", "test_labels"))
    class_names = CLASS_NAMES if hashes == sources.FILES else _class_names(folder, num_classes)
    return Dataset(**arrays, class_names=class_names, sha256=hashes, source=str(folder), folder=str(folder.absolute()))


def _find(folder: Path, name: str) -> Path:
    zipped, plain = folder / f"{name}.gz", folder / name
    return plain if plain.exists() and not zipped.exists() else zipped


def _arrays(paths: dict[str, Path], contents: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Give the images and labels of both parts, by the names that `Dataset` has for them."""
    arrays: dict[str, np.ndarray] = {}
    for part, file_prefix in (("train", "train"), ("test", "t10k")):
        images_name, labels_name = f"{file_prefix}-images-idx3-ubyte", f"{file_prefix}-labels-idx1-ubyte"
        images = idx.images(paths[images_name], contents[images_name])
        labels = idx.labels(paths[labels_name], contents[labels_name])
        if len(images) != len(labels):
            raise FmnistError(
                f"{paths[images_name]} holds {len(images)} images, but {paths[labels_name]} holds {len(labels)} "
                "labels; expected as many of one as of the other"
            )
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    return arrays


def _class_names(folder: Path, num_classes: int) -> tuple[str, ...]:
    path = folder / "labels.txt"
    if not os.path.lexists(path):
        return tuple(f"class {index}" for index in range(num_classes))
    try:
        if not path.is_file():
            raise FmnistError(f"{path} is no file; expected the names of the classes, one a line")
        with path.open("rb") as file:
            text = file.read(MAX_LABELS_BYTES + 1)
        if len(text) > MAX_LABELS_BYTES:
            raise FmnistError(f"{path} is longer than {MAX_LABELS_BYTES:,} bytes; expected a name a line")
        names = tuple(line.strip() for line in text.decode("utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise FmnistError(f"{path} cannot be read as text ({error})") from error
    if len(set(names)) < len(names):
        raise FmnistError(f"{path} names a class twice; expected a different name for each")
    if not num_classes <= len(names) <= MAX_CLASSES:
        raise FmnistError(f"{path} names {len(names)} classes; expected {num_classes} to {MAX_CLASSES}")
    if not are_class_names(names):
        raise FmnistError(f"{path} has a name of over {MAX_NAME} characters or with control characters; change it")
    return names


def are_class_names(value: Any) -> bool:
    """Say whether these are one to ten different names that can be shown anywhere."""
    return (
        isinstance(value, list | tuple)
        and 1 <= len(value) <= MAX_CLASSES
        and all(
            isinstance(name, str) and name.strip() and len(name) <= MAX_NAME and name.isprintable() for name in value
        )
        and len(set(value)) == len(value)
    )


def split(dataset: Dataset, seed: int, full: bool = False) -> Split:
    """Part the training images, class by class in proportion.

    Args:
        dataset: what `load` gave.
        seed: decides which images go where.
        full: keep all of them for training.

    Returns:
        The parts; validation is 5,000 images or a twelfth, whichever is fewer, or none with `full`.

    Raises:
        FmnistError: if there are too few images to have each class in both parts.
    """
    images, labels = dataset.train_images, dataset.train_labels
    if full:
        return Split(images, labels, images[:0], labels[:0])
    from sklearn.model_selection import train_test_split

    num_validation = min(MAX_VALIDATION_IMAGES, int(len(labels) * VALIDATION_SHARE))
    try:
        train, val = train_test_split(
            np.arange(len(labels)), test_size=num_validation, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise FmnistError(
            f"{len(labels)} training images are too few for a validation part; expected at least two of each class "
            "and a twelfth that has room for all; use --full"
        ) from error
    return Split(images[train], labels[train], images[val], labels[val])


def normalise(images: np.ndarray) -> np.ndarray:
    """Turn stored pixels into what the networks take.

    Args:
        images: (n, 28, 28) uint8, 0 to 255.

    Returns:
        (n, 28, 28, 1) float32, 0.0 to 1.0, with the channel axis that convolutions need.

    Raises:
        FmnistError: for another shape or type.
    """
    check_images(images)
    return images[..., np.newaxis].astype(np.float32) / np.float32(255)


def check_images(images: np.ndarray) -> None:
    """Raise an `FmnistError` unless the images are (n, 28, 28) uint8."""
    if not isinstance(images, np.ndarray):
        raise FmnistError(f"images are a {type(images).__name__}; expected a NumPy array, uint8 of shape (n, 28, 28)")
    if images.dtype != np.uint8 or images.shape[1:] != (idx.IMAGE_SIZE, idx.IMAGE_SIZE):
        raise FmnistError(f"images are {images.dtype} of shape {images.shape}; expected uint8 of shape (n, 28, 28)")


def spread(num_images: int, most: int) -> np.ndarray:
    """Choose images evenly from first to last, since files may hold them class by class.

    Returns:
        (min(num_images, most),) indices, growing.
    """
    return np.linspace(0, num_images - 1, min(num_images, most)).astype(int)


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Turn class indices into rows with a single 1, by `keras.utils.to_categorical`.

    Args:
        labels: (n,) integers from 0 to `num_classes` - 1.
        num_classes: the width of a row.

    Returns:
        (n, num_classes) float32.
    """
    import keras

    return keras.utils.to_categorical(labels, num_classes).astype(np.float32)
