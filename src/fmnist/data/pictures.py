"""Pictures in a folder for each class, as images of a data set."""

import io
import logging
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fmnist.config import IMAGE_SIZE, MAX_CLASSES
from fmnist.data.blocks import Block, part_of
from fmnist.data.formats import MAX_IMAGES
from fmnist.errors import FmnistError
from fmnist.files import read_bounded

log = logging.getLogger("fmnist")

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif"}
"""Of files by which a folder of pictures is recognized. The content decides whether a file is a picture."""
MAX_PICTURE_BYTES = 2**25
MAX_PICTURE_PIXELS = 50_000_000
SIZE = (IMAGE_SIZE, IMAGE_SIZE)
NUM_NAMED = 3
"""Skipped files that a message names; the others are counted."""


def has_class_folders(folder: Path) -> bool:
    """Check whether a folder contains folders with pictures, as `read_class_folders` expects them."""
    return any(path.suffix.lower() in SUFFIXES for pattern in ("*/*", "*/*/*") for path in folder.glob(pattern))


def read_class_folders(folder: Path) -> dict[str | None, Block]:
    """Read the pictures of a folder with a folder for each class.

    Args:
        folder: contains the class folders, or `train` and `test` (or `val`) with the class folders in each. Classes are
            in the order of their names; numbers are in the order of the numbers. Dot files and files that are no
            pictures are skipped and counted.

    Returns:
        A block for each part, or one block under None if the folder has no parts.

    Raises:
        FmnistError: if there are no pictures, or too many pictures or classes.
    """
    parts = _part_folders(folder) or {None: folder}
    if None in parts:
        _refuse_parts_as_classes(folder)
    files = {part: _files_by_class(path) for part, path in parts.items()}
    names = sorted({name for by_class in files.values() for name in by_class}, key=_natural_order)
    if not names:
        raise FmnistError(f"{folder} has no folder with pictures; expected a folder of pictures for each class")
    num_files = sum(len(paths) for by_class in files.values() for paths in by_class.values())
    if len(names) > MAX_CLASSES or num_files > MAX_IMAGES:
        raise FmnistError(
            f"{folder} has {len(names)} class folders with {num_files:,} files; expected at most {MAX_CLASSES} classes "
            f"and {MAX_IMAGES:,} pictures"
        )
    return {part: _read_part(parts[part], by_class, names) for part, by_class in files.items()}


def list_class_folders(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """List a folder with a folder of pictures for each class.

    Returns:
        Whatever is in each class folder, by the name of the class, without dot files; and the files beside the class
        folders.

    Raises:
        FmnistError: if there is no such folder, or its folders are the parts of a data set.
    """
    if not folder.is_dir():
        raise FmnistError(f"no folder {folder}; expected one that contains a folder of pictures for each class")
    if parts := _part_folders(folder):
        names = " and ".join(str(path) for path in parts.values())
        raise FmnistError(f"{folder} has parts with a folder of pictures for each class; name one of them: {names}")
    classes = sorted(_subfolders(folder), key=lambda path: _natural_order(path.name))
    return {path.name: _visible(path) for path in classes}, [path for path in _visible(folder) if not path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _part_folders(folder: Path) -> dict[str | None, Path]:
    """Return `train` and `test`, or `val` where there is no `test`. Empty if the folders are classes."""
    found: dict[str | None, Path] = {
        part: path for path in _subfolders(folder) if (part := part_of(path.name, whole=True))
    }
    others = len(_subfolders(folder)) - len(found)
    if "train" not in found or (others and len(found) == 1) or not _subfolders(found["train"]):
        return {}
    validation = found.pop("validation", None)
    if validation and "test" in found:
        log.info("the pictures in %s are not used: fmnist takes validation images from the training part", validation)
    elif validation:
        log.info("%s has no folder test; %s is the test part", folder, validation)
        found["test"] = validation
    return found


def _refuse_parts_as_classes(folder: Path) -> None:
    """Raise an `FmnistError` if the folders are by their names the parts of a data set, with the pictures inside."""
    found = {path: part_of(path.name) for path in _subfolders(folder)}
    parts = set(found.values())
    if None not in parts and (len(parts) > 1 or len(found) == 1):
        names = " and ".join(path.name for path in found)
        raise FmnistError(
            f"{folder} has pictures in {names} without folders for their classes; expected a folder of pictures for "
            "each class, as train/CLASS/PICTURE and test/CLASS/PICTURE"
        )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    files = {path.name: sorted(each for each in path.iterdir() if each.is_file()) for path in _subfolders(folder)}
    return {name: paths for name, paths in files.items() if any(not path.name.startswith(".") for path in paths)}


def _natural_order(name: str) -> tuple[bool, int, str]:
    """Order numbers by value and before names: 9 before 10."""
    is_number = name.isdecimal()
    return not is_number, int(name) if is_number else 0, name


def _read_part(folder: Path, by_class: dict[str, list[Path]], names: list[str]) -> Block:
    images: list[np.ndarray] = []
    labels: list[int] = []
    skipped: list[str] = []
    for label, name in enumerate(names):
        for path in by_class.get(name, ()):
            try:
                if path.name.startswith("."):
                    raise FmnistError("a dot file")
                images.append(read_picture(read_bounded(path, MAX_PICTURE_BYTES, "omit it", follow_links=True)))
                labels.append(label)
            except FmnistError:
                skipped.append(os.path.join(name, path.name))
    if skipped:
        named = ", ".join(skipped[:NUM_NAMED]) + (", ..." if len(skipped) > NUM_NAMED else "")
        log.warning("%s: %d files are skipped, because they are no pictures that can be read: %s",
                    folder, len(skipped), named)  # fmt: skip
    if not images:
        raise FmnistError(f"{folder} has no picture that can be read; expected at least one in a folder for each class")
    return Block(np.stack(images), np.array(labels, np.int64), str(folder), tuple(names))


def read_picture(content: bytes) -> np.ndarray:
    """Decode a picture as an image of a data set.

    A gray picture of 28x28 pixels is used as it is. Colors become gray, transparency becomes black, or white if what it
    surrounds is dark. Other sizes are scaled to fit, in their own proportions, and centered on the gray level of their
    border.

    Args:
        content: of a file in one of `FORMATS`; of an animation, the first frame.

    Returns:
        (28, 28) uint8.

    Raises:
        FmnistError: if it is no such picture, damaged, or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PICTURE_PIXELS:
                raise FmnistError(f"a picture of {picture.width}x{picture.height}; expected fewer pixels")
            picture.draft("L", (8 * IMAGE_SIZE, 8 * IMAGE_SIZE))  # a JPEG is decoded at a fraction of its size
            gray = _to_gray(_upright(picture))
    except FmnistError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
        raise FmnistError(f"no picture that can be read ({error})") from error
    if gray.size != SIZE:
        pixels = np.asarray(gray)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        gray = ImageOps.pad(gray, SIZE, Image.Resampling.LANCZOS, color=int(np.median(border)))
    return np.array(gray)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # an odd EXIF block says nothing about the pixels
        picture.load()
        return picture


def _to_gray(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        return Image.fromarray((np.asarray(picture).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("L")
    colored = picture.convert("RGBA")
    gray, alpha = np.asarray(colored.convert("L"), np.float32), np.asarray(colored.getchannel("A"), np.float32) / 255
    is_dark = float((gray * alpha).sum()) < 128 * float(alpha.sum()) and not alpha.all()
    return Image.fromarray(np.rint(gray * alpha + (255 if is_dark else 0) * (1 - alpha)).astype(np.uint8))
