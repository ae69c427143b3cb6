"""Make a classifier from a few photos of each class: a new last layer for the color network."""

import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fmnist.config import MAX_CLASSES
from fmnist.data.names import check_names
from fmnist.data.pictures import list_class_folders
from fmnist.documents import write_document
from fmnist.errors import FmnistError, one_line
from fmnist.files import MAX_NAME_IN_TEMPORARY, sha256, write_atomic
from fmnist.inference import photo, picture
from fmnist.inference.color import ColorNetwork, views_of
from fmnist.inference.discriminant import fit_and_score
from fmnist.runs.environment import num_cpus
from fmnist.runs.run import PRETRAINED_FOLDER
from fmnist.runs.schemas import ADAPTED_FILE, ADAPTED_WEIGHTS_FILE, AdaptedRecord

MIN_PHOTOS = 5
"""Of each class."""
MAX_PHOTOS = 10_000
NUM_NAMED = 3
"""Skipped files that an error names; the others are counted."""

Skipped = dict[Path, str]
"""Files that are not used, with the reason in one line."""


def adapt(
    folder: Path, out: Path, on_photo: Callable[[int], object] = lambda num_files: None
) -> tuple[AdaptedRecord, Skipped]:
    """Make a classifier from the photos in a folder with a folder for each class.

    Args:
        folder: contains at least two class folders, each with at least `MIN_PHOTOS` photos.
        out: the folder to create for the model, which `Classifier.load` opens.
        on_photo: is called after each file with the number of all files.

    Returns:
        What the model is, with its scores, and the files that were skipped.

    Raises:
        FmnistError: if there are too few or too many photos or classes, or `out` exists. Nothing is written then.
    """
    if os.path.lexists(out):
        raise FmnistError(f"{out} exists; expected a new folder, so choose another name")
    by_class, loose = list_class_folders(folder)
    skipped = {path: f"{path} is in no class folder" for path in loose}
    _check_numbers(folder, {name: len(files) for name, files in by_class.items()}, skipped)
    class_names = check_names(by_class, str(folder))
    color = ColorNetwork.load(PRETRAINED_FOLDER)
    pairs = [(label, file) for label, files in enumerate(by_class.values()) for file in files]
    used: list[tuple[int, np.ndarray]] = []
    first_with: dict[bytes, Path] = {}
    for (label, file), found in zip(pairs, _compute_features(color, [file for _, file in pairs]), strict=True):
        if isinstance(found, str):
            skipped[file] = found
        elif (first := first_with.setdefault(found.tobytes(), file)) != file:
            # Cross-validation would be asked about photos that it has learned from.
            skipped[file] = f"{file} shows the same as {first}"
        else:
            used.append((label, found))
        on_photo(len(pairs))
    labels = np.array([label for label, _ in used], int)
    num_photos = np.bincount(labels, minlength=len(class_names)).tolist()
    _check_numbers(folder, dict(zip(by_class, num_photos, strict=True)), skipped)
    weights, scores = fit_and_score(np.stack([features for _, features in used]), labels)
    content = io.BytesIO()
    np.save(content, weights)
    record = AdaptedRecord(
        class_names=class_names,
        num_photos=tuple(num_photos),
        sha256=sha256(content.getvalue()),
        color_sha256=color.record.sha256,
        **scores,
    )
    _write(out, content.getvalue(), record)
    return record, skipped


def _check_numbers(folder: Path, num_photos: dict[str, int], skipped: Skipped) -> None:
    """Raise an `FmnistError` unless there are enough classes and photos, and not too many."""
    few = [f"{name} ({number})" for name, number in num_photos.items() if number < MIN_PHOTOS]
    if len(num_photos) < 2:
        problem = f"{len(num_photos)} class folders; expected a folder of photos for each of at least 2 classes"
    elif few:
        problem = f"too few photos of {', '.join(few)}; expected at least {MIN_PHOTOS} of each class"
    elif len(num_photos) > MAX_CLASSES or sum(num_photos.values()) > MAX_PHOTOS:
        problem = (
            f"{len(num_photos)} classes and {sum(num_photos.values()):,} files; expected at most {MAX_CLASSES} classes "
            f"and {MAX_PHOTOS:,} photos"
        )
    else:
        return
    examples = f". Skipped: {', '.join([*skipped.values()][:NUM_NAMED])}" if skipped else ""
    more = f", and {len(skipped) - NUM_NAMED} more" if len(skipped) > NUM_NAMED else ""
    raise FmnistError(f"{folder} has {problem}{examples}{more}")


def _compute_features(color: ColorNetwork, files: Sequence[Path]) -> Iterator[np.ndarray | str]:
    """Yield the features of each photo, or why it cannot be used. All processors work."""

    def compute(file: Path) -> np.ndarray | str:
        try:
            return color.features(views_of(photo.convert(picture.read(file), "photo")))
        except Exception as error:
            return one_line(error)

    pool = ThreadPoolExecutor(num_cpus(), "adapt")
    try:
        yield from pool.map(compute, files)
    finally:
        pool.shutdown(cancel_futures=True)


def _write(out: Path, weights: bytes, record: AdaptedRecord) -> None:
    """Create the folder of the model, whole or not at all."""
    temporary = out.with_name(f".{out.name[:MAX_NAME_IN_TEMPORARY]}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        write_atomic(temporary / ADAPTED_WEIGHTS_FILE, weights)
        write_document(temporary / ADAPTED_FILE, record)
        temporary.rename(out)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
