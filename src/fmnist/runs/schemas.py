"""What the documents of a run may hold: a form is a table of names, each with a check and what it expects."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmnist.config import MAX_EPOCHS, are_views
from fmnist.data.dataset import MAX_CLASSES, are_class_names
from fmnist.data.download import FILES
from fmnist.errors import FmnistError

Form = dict[str, tuple[Callable[[Any], bool], str]]
"""Name to a check of its value, and the words for what would pass."""

MAX_TEXT = 1_000
"""Characters in a value that is there for people alone."""


def whole(least: int, most: int) -> tuple[Callable[[Any], bool], str]:
    """Expect a whole number, and no truth value, which Python counts among them."""
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"


def number(least: float, most: float) -> tuple[Callable[[Any], bool], str]:
    """Expect a number between two finite ones."""
    return lambda value: type(value) in {int, float} and least <= value <= most, f"a number from {least:g} to {most:g}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_plain_name(value: Any) -> bool:
    """Whether a name stays in its folder, on every system."""
    return isinstance(value, str) and re.fullmatch(r"\w[\w-]*(\.[\w-]+)*", value, re.ASCII) is not None


def _are_hashes_of_files(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"model.onnx", "weights.safetensors"} <= value.keys()
        and all(_is_plain_name(name) and _is_sha256(digest) for name, digest in value.items())
    )


def _are_versions(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and _is_text(version) for name, version in value.items())


def _are_hashes_of_data(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == FILES.keys() and all(map(_is_sha256, value.values()))


TEXT = _is_text, f"a text of at most {MAX_TEXT} characters"

MANIFEST: Form = {
    "class_names": (are_class_names, f"1 to {MAX_CLASSES} different names in printable characters"),
    "views": (are_views, "a list of views, each of a truth value and two small shifts"),
    "temperature": number(0.01, 100),
    "calibrated_by": (lambda value: value is None or _is_text(value), "the name of a run, or null"),
    "epochs_trained": whole(0, MAX_EPOCHS),
    "parameters": whole(0, 10**9),
    "train_seconds": number(0, 10**9),
    "sha256": (_are_hashes_of_files, "the SHA-256 of model.onnx and weights.safetensors, by plain file name"),
}

ENVIRONMENT: Form = {
    "python": TEXT,
    "versions": (_are_versions, "a version for each package"),
    "platform": TEXT,
    "processor": TEXT,
    "threads": whole(1, 10**6),
    "precision": TEXT,
    "data_sha256": (_are_hashes_of_data, "the SHA-256 of the four data files"),
}


def check(path: Path, document: dict[str, Any], form: Form, mend: str) -> dict[str, Any]:
    """Hold a document against a form; names that the form does not know may be there.

    Returns:
        The document.

    Raises:
        FmnistError: naming the file, the first name that does not fit, and what was expected.
    """
    for name, (fits, expected) in form.items():
        if name not in document or not fits(document[name]):
            raise FmnistError(f"{path} is damaged (its {name} is missing or not {expected}); {mend}")
    return document
