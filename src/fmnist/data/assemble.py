"""From what containers hold to training and test part: check, name and split it."""

import logging
import os
from pathlib import Path

import numpy as np

from fmnist.config import MAX_CLASSES
from fmnist.data.arrays import as_images, as_labels, check_lengths
from fmnist.data.blocks import Block
from fmnist.data.names import NAMES_FILE, check_names, names_beside
from fmnist.errors import FmnistError

log = logging.getLogger("fmnist")

TEST_FRACTION = 0.25
"""Of each class, where there is no test part: scikit-learn's `train_test_split` takes as much."""

Parts = dict[str, tuple[np.ndarray, np.ndarray]]
"""Images (n, 28, 28) and labels (n,), both uint8, of `train` and `test`."""


def assemble(path: Path, folder: Path, blocks: dict[str | None, Block]) -> tuple[Parts, tuple[str, ...] | None]:
    """Convert the blocks of a data set to its parts and the names of its classes.

    Args:
        path: where the data is, for error messages.
        folder: has the files, and perhaps `labels.txt`.
        blocks: as `read_blocks` returns them.

    Returns:
        The parts, and the class names, or None if the data has no names.

    Raises:
        FmnistError: for data that is ambiguous or inconsistent.
    """
    names = next((block.class_names for block in blocks.values() if block.class_names), None)
    labels = {part: block.labels for part, block in blocks.items()}
    if any(values.dtype.kind == "U" for values in labels.values()):
        labels, names = _numbers_for_texts(path, labels)
    parts = {
        part: (as_images(block.images, block.source), as_labels(labels[part], block.labels_source or block.source))
        for part, block in blocks.items()
    }
    for part, block in blocks.items():
        check_lengths(*parts[part], block.source, block.labels_source or block.source)
    if parts.keys() - {"train", "test"} or len(parts) == 1:
        both = _hold_out(path, *next(iter(parts.values())))
    else:
        both = {str(part): arrays for part, arrays in parts.items()}
    above = path if path.is_dir() else path.parent
    return both, _class_names(above if os.path.lexists(above / NAMES_FILE) else folder, both, names)


def _numbers_for_texts(
    path: Path, labels: dict[str | None, np.ndarray]
) -> tuple[dict[str | None, np.ndarray], tuple[str, ...]]:
    """Return labels that are texts as indices into their sorted texts, which name the classes."""
    names = sorted({str(text) for values in labels.values() for text in values.ravel()})
    if len(names) > MAX_CLASSES:
        raise FmnistError(
            f"{path} has {len(names)} different labels, {names[0][:40]!r} and others; expected at most {MAX_CLASSES}"
        )
    return {part: np.searchsorted(names, values.astype(str)) for part, values in labels.items()}, tuple(names)


def _hold_out(path: Path, images: np.ndarray, labels: np.ndarray) -> Parts:
    """Split data that has no test part: a quarter of each class, chosen at random.

    `RandomState` draws the same numbers in every version of NumPy, so the parts are always the same.
    """
    is_test = np.zeros(len(labels), bool)
    generator = np.random.RandomState(0)
    for label in np.unique(labels):
        shuffled = generator.permutation(np.flatnonzero(labels == label))
        is_test[shuffled[: round(len(shuffled) * TEST_FRACTION)]] = True
    if not is_test.any():
        raise FmnistError(f"{path} has {len(labels)} images and no test part; expected more images, or a test part")
    log.warning(
        "%s has no test part: %d of its %d images, a random quarter of each class, are held out as one",
        path,
        is_test.sum(),
        len(labels),
    )
    return {"train": (images[~is_test], labels[~is_test]), "test": (images[is_test], labels[is_test])}


def _class_names(folder: Path, parts: Parts, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the names in `labels.txt`, or those that the data itself has."""
    all_labels = np.concatenate([labels for _, labels in parts.values()])
    low, high = int(all_labels.min()), int(all_labels.max())
    if low > 0:
        raise FmnistError(
            f"the labels in {folder} are {low} to {high}; expected 0 to {high - low}: subtract {low} from each label"
        )
    if names is not None:
        names = check_names(names, str(folder))
    written = names_beside(folder, max(high + 1, len(names or ())))
    if written and names and written != names and not all(name.isdecimal() for name in names):
        raise FmnistError(
            f"{folder / NAMES_FILE} has other names than the data, or another order; expected {', '.join(names)}, so "
            "remove the file, or change the names in the data"
        )
    return written or names
