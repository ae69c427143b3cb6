"""The IDX file format: read, check and parse files of images and labels."""

import errno
import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from fmnist.config import IMAGE_SIZE, MAX_CLASSES
from fmnist.errors import FmnistError
from fmnist.files import UnsuitableFileError, read_bounded

IMAGE_MAGIC = 0x00000803
LABEL_MAGIC = 0x00000801
IMAGE_HEADER_BYTES, LABEL_HEADER_BYTES = 16, 8
MAX_IMAGES = 1_000_000
"""The largest data set in this format, EMNIST, has 814,255 images. A gzip bomb would declare many more."""
MAX_FILE_BYTES = 2**30
"""Limit on disk: more than `MAX_IMAGES` images take even where gzip cannot compress them."""
MAX_DEFLATE_RATIO = 1032
"""Upper bound of the size of decompressed data over the size of its deflate stream (zlib's technical notes)."""
CHUNK_BYTES = 2**20
HINT = "restore it or use another folder"


class DamagedFileError(FmnistError):
    """A file that can never be used as it is, unlike one that is missing or not readable at the moment."""


def read_idx(path: Path) -> bytes:
    """Read an IDX file, gzipped or plain, and check that its size is the one its header declares.

    Memory is bounded by the size on disk plus the size that the header declares. A header that declares more than the
    file can hold is refused before the rest is decompressed.

    Args:
        path: the file; it is decompressed if its name ends in `.gz`.

    Returns:
        The decompressed bytes, header included.

    Raises:
        DamagedFileError: if the file can never be used, naming the file and the problem.
        FmnistError: if it is missing or not readable.
    """
    if path.suffix == ".gz":
        return _decompress(path, _read_stored(path))
    header = _read_stored(path, IMAGE_HEADER_BYTES)
    size = path.stat().st_size
    _check_size(path, size, _declared_bytes(path, header, size))
    return _read_stored(path)


def _read_stored(path: Path, num_bytes: int | None = None) -> bytes:
    try:
        return read_bounded(path, MAX_FILE_BYTES, HINT, follow_links=True, num_bytes=num_bytes)
    except UnsuitableFileError as error:
        raise DamagedFileError(str(error)) from error
    except FmnistError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in {errno.ENOENT, errno.ELOOP} and path.is_symlink():
            raise DamagedFileError(f"{path} is a symbolic link to a missing file; {HINT}") from error
        raise


def _decompress(path: Path, stored: bytes) -> bytes:
    """Decompress no more than the header declares, because a small gzip file can expand without limit."""
    try:
        with cast(BinaryIO, gzip.GzipFile(fileobj=io.BytesIO(stored))) as file:
            header = file.read(IMAGE_HEADER_BYTES)
            declared = _declared_bytes(path, header, len(stored) * MAX_DEFLATE_RATIO)
            content = _read_at_most(file, header, declared + 1)
    except EOFError as error:
        raise DamagedFileError(f"{path} is truncated: its gzip stream is incomplete") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFileError(f"{path} is damaged or not a gzip file ({error})") from error
    _check_size(path, len(content), declared)
    return content


def _read_at_most(file: BinaryIO, start: bytes, max_bytes: int) -> bytes:
    """Read in chunks: a single read of `max_bytes` would allocate all of it before the data is known to exist."""
    content = io.BytesIO()
    content.write(start)
    while chunk := file.read(max(0, min(CHUNK_BYTES, max_bytes - content.tell()))):
        content.write(chunk)
    return content.getvalue()


def _declared_bytes(path: Path, header: bytes, max_bytes: int) -> int:
    """Return the size of the decompressed file that its header declares, at most `max_bytes`."""
    words = [int.from_bytes(header[start : start + 4], "big") for start in range(0, len(header) - 3, 4)]
    is_labels = len(words) >= 2 and words[0] == LABEL_MAGIC
    is_images = len(words) == 4 and words[0] == IMAGE_MAGIC
    if not (is_labels or is_images):
        raise DamagedFileError(
            f"{path} is not an IDX file of images or labels: it begins with {header[:4].hex() or 'nothing'}"
        )
    if words[1] > MAX_IMAGES:
        raise DamagedFileError(f"{path} declares {words[1]:,} entries; expected at most {MAX_IMAGES:,}")
    declared = LABEL_HEADER_BYTES + words[1]
    if is_images:
        num_images, height, width = words[1:]
        if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
            raise DamagedFileError(f"{path} contains images of {height}x{width}; expected {IMAGE_SIZE}x{IMAGE_SIZE}")
        declared = IMAGE_HEADER_BYTES + num_images * height * width
    if declared > max_bytes:
        raise DamagedFileError(f"{path} is truncated: its header declares {declared} bytes, more than it can hold")
    return declared


def _check_size(path: Path, size: int, declared: int) -> None:
    if size != declared:
        problem = "is truncated" if size < declared else "has trailing bytes"
        raise DamagedFileError(f"{path} {problem}: its header declares {declared} bytes")


def parse_images(path: Path, content: bytes) -> np.ndarray:
    """Return the images of an IDX file as an array.

    Args:
        path: the file, for error messages.
        content: its decompressed bytes, as `read_idx` returns them.

    Returns:
        Images of shape (n, 28, 28), uint8, 0 (black background) to 255. Read-only: they share memory with `content`.

    Raises:
        FmnistError: if the file contains labels or no images.
    """
    if int.from_bytes(content[:4], "big") != IMAGE_MAGIC:
        raise FmnistError(f"{path} contains labels; expected images")
    if len(content) == IMAGE_HEADER_BYTES:
        raise FmnistError(f"{path} contains no images; expected at least one")
    return np.frombuffer(content, np.uint8, offset=IMAGE_HEADER_BYTES).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)


def parse_labels(path: Path, content: bytes) -> np.ndarray:
    """Return the labels of an IDX file as an array.

    Args:
        path: the file, for error messages.
        content: its decompressed bytes, as `read_idx` returns them.

    Returns:
        Labels of shape (n,), uint8, below `MAX_CLASSES`. Read-only: they share memory with `content`.

    Raises:
        FmnistError: if the file contains images, or a label that is too large.
    """
    if int.from_bytes(content[:4], "big") != LABEL_MAGIC:
        raise FmnistError(f"{path} contains images; expected labels")
    labels = np.frombuffer(content, np.uint8, offset=LABEL_HEADER_BYTES)
    if (largest := int(labels.max(initial=0))) >= MAX_CLASSES:
        raise FmnistError(f"{path} contains the label {largest}; expected 0 to {MAX_CLASSES - 1}")
    return labels
