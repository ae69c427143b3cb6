"""Images and labels as arrays: what is unambiguous is converted to the data set's form, anything else is refused."""

import hashlib
from typing import Any

import numpy as np

from fmnist.config import IMAGE_SIZE, MAX_CLASSES
from fmnist.errors import FmnistError

IMAGE_SHAPES = {(IMAGE_SIZE, IMAGE_SIZE), (IMAGE_SIZE, IMAGE_SIZE, 1), (1, IMAGE_SIZE, IMAGE_SIZE), (IMAGE_SIZE**2,)}
"""Shapes of one image that are the same pixels in the same order."""
QMNIST_COLUMNS = 8
"""QMNIST's label files have the class in the first column; the others describe the writer."""


def as_images(images: Any, name: str) -> np.ndarray:
    """Convert images to the form of the data set.

    Args:
        images: an array of any integer type with values from 0 to 255 and one of `IMAGE_SHAPES` for each image.
        name: where it comes from, for error messages.

    Returns:
        (n, 28, 28) uint8. It shares memory with `images` where possible.

    Raises:
        FmnistError: for no images, or another type, range or shape, naming those found and how to convert them.
    """
    _check_is_array(images, name, "images, uint8 of shape (n, 28, 28)")
    if images.ndim < 2 or images.shape[1:] in {(1,), (QMNIST_COLUMNS,)}:
        raise FmnistError(f"{name} contains labels; expected images")
    if not len(images):
        raise FmnistError(f"{name} contains no images; expected at least one")
    if images.shape[1:] not in IMAGE_SHAPES:
        raise FmnistError(f"{name} {describe_size(images.shape)}")
    images = images.reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "biuf":
        raise FmnistError(f"{name} contains images of type {images.dtype}; expected uint8 from 0 to 255")
    low, high = images.min(), images.max()
    if images.dtype.kind in "iu" and low >= 0 and high <= 255:
        return images.astype(np.uint8)
    factor = "255 * " if images.dtype.kind == "b" or (low >= 0 and high <= 1) else ""
    scaled = factor or (low >= 0 and high <= 255)
    hint = f"({factor}images).round().astype('uint8')" if scaled else "scale them to 0 to 255 and round"
    raise FmnistError(
        f"{name} contains {images.dtype.name} images from {low:g} to {high:g}; expected uint8 from 0 to 255: {hint}"
        if images.dtype.kind != "b"
        else f"{name} contains images of True and False; expected uint8 from 0 to 255: {hint.replace('.round()', '')}"
    )


def as_labels(labels: Any, name: str) -> np.ndarray:
    """Convert labels to the form of the data set.

    Args:
        labels: (n,) or (n, 1) whole numbers from 0 to `MAX_CLASSES` - 1 of any type, or QMNIST's (n, 8).
        name: where it comes from, for error messages.

    Returns:
        (n,) uint8.

    Raises:
        FmnistError: for another type, range or shape, naming those found and how to convert them.
    """
    _check_is_array(labels, name, f"labels, (n,) integers from 0 to {MAX_CLASSES - 1}")
    if labels.ndim > 2 or labels.shape[1:] == (IMAGE_SIZE**2,):
        raise FmnistError(f"{name} contains images; expected labels")
    if labels.dtype.kind not in "biuf":
        raise FmnistError(f"{name} contains labels of type {labels.dtype}; expected integers from 0")
    if labels.ndim == 2:
        labels = _only_column(labels, name)
    if labels.ndim != 1:
        raise FmnistError(f"{name} contains labels of shape {labels.shape}; expected one label for each image, (n,)")
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.floor(labels))).all():
        raise FmnistError(f"{name} contains {labels.dtype.name} labels that are no whole numbers; expected integers")
    out_of_range = labels[(labels < 0) | (labels >= MAX_CLASSES)]
    if len(out_of_range):
        value = int(out_of_range.max() if out_of_range.max() >= MAX_CLASSES else out_of_range.min())
        raise FmnistError(f"{name} contains the label {value}; expected 0 to {MAX_CLASSES - 1}")
    return labels if labels.dtype == np.uint8 else labels.astype(np.uint8)


def _only_column(labels: np.ndarray, name: str) -> np.ndarray:
    num_columns = labels.shape[1]
    is_one_hot = num_columns > 1 and bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())
    if num_columns == 1 or (num_columns == QMNIST_COLUMNS and labels.dtype.kind == "i" and not is_one_hot):
        return labels[:, 0]
    hint = "these are one-hot rows: use labels.argmax(axis=1)" if is_one_hot else "choose the column of the class"
    raise FmnistError(
        f"{name} contains {labels.dtype.name} labels of shape {labels.shape}; expected one label for each image, "
        f"(n,); {hint}"
    )


def _check_is_array(value: Any, name: str, expected: str) -> None:
    if not isinstance(value, np.ndarray):
        raise FmnistError(f"{name} is a {type(value).__name__}; expected a NumPy array of {expected}")


def check_lengths(images: np.ndarray, labels: np.ndarray, images_source: str, labels_source: str) -> None:
    """Raise an `FmnistError` unless there is a label for each image."""
    if len(images) != len(labels):
        where = "it" if labels_source == images_source else labels_source
        raise FmnistError(
            f"{images_source} contains {len(images)} images, but {where} contains {len(labels)} labels; expected equal "
            "numbers"
        )


def describe_size(shape: tuple[int, ...]) -> str:
    """Format what is wrong with images of a shape that is not in `IMAGE_SHAPES`, and what to do."""
    if len(shape) == 3:
        found = f"contains images of {shape[1]}x{shape[2]}"
        hint = "resize them, or save them as pictures in a folder for each class, which are resized"
    else:
        found, hint = f"contains an array of shape {shape}", "convert it to gray images, (n, 28, 28)"
    return f"{found}; expected {IMAGE_SIZE}x{IMAGE_SIZE}: {hint}"


def idx_header(array: np.ndarray) -> bytes:
    """Return the header of the IDX file of a uint8 array."""
    return bytes([0, 0, 0x08, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)


def idx_sha256(array: np.ndarray) -> str:
    """Return the SHA-256 of the IDX file of a uint8 array, so that data is the same in whatever container it came."""
    digest = hashlib.sha256(idx_header(array))
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def idx_content(array: np.ndarray) -> bytes:
    """Return the content of the IDX file of a uint8 array."""
    return idx_header(array) + np.ascontiguousarray(array).tobytes()
