"""Blocks of images and labels as containers hold them, and what their names say."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

Part = Literal["train", "test", "validation"]
Kind = Literal["images", "labels"]

PART_WORDS: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "t10k", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
}
KIND_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("images", "image", "imgs", "img", "x", "data", "pixels"), "images"),
    **dict.fromkeys(("labels", "label", "y", "target", "targets", "class"), "labels"),
}
FORMAT_WORDS = {
    "idx1",
    "idx2",
    "idx3",
    "idx4",
    "ubyte",
    "int",
    "npy",
    "npz",
    "gz",
    "bz2",
    "xz",
    "zip",
    "csv",
    "parquet",
}


@dataclass(frozen=True, eq=False)
class Block:
    """Images with their labels, of any type and shape, as a container holds them."""

    images: np.ndarray
    labels: np.ndarray
    """Integers, or texts that name the classes."""
    source: str
    """File or folder, for error messages."""
    class_names: tuple[str, ...] | None = None
    """Names that the container has for the labels 0, 1, 2 and so on."""
    labels_source: str | None = None
    """The file of the labels, if that is another one than `source`."""


def words(name: str) -> list[str]:
    """Split a name into its words in lower case: `trainImages.idx3-ubyte` has train, images, idx3 and ubyte."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def part_of(name: str, *, whole: bool = False) -> Part | None:
    """Return the part that a name stands for, by one of its words, or by the whole name."""
    candidates = [name.lower()] if whole else words(name)
    return next((PART_WORDS[word] for word in candidates if word in PART_WORDS), None)


def kind_of(name: str) -> Kind | None:
    """Return whether a name stands for images or labels. None also for the names of the labels."""
    found = next((KIND_WORDS[word] for word in words(name) if word in KIND_WORDS), None)
    return None if "names" in words(name) else found


def data_set_of(name: str) -> str:
    """Return what remains of a file name without part, kind and format: the name of its data set, mostly empty.

    >>> data_set_of("emnist-letters-train-images-idx3-ubyte.gz")
    'emnist letters'
    """
    known = PART_WORDS.keys() | KIND_WORDS.keys() | FORMAT_WORDS
    return " ".join(word for word in words(name) if word not in known and not re.fullmatch(r"\d{5}|of", word))
