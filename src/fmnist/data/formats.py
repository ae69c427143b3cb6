"""The IDX file format: bytes, checked, into arrays."""

import errno
import gzip
import hashlib
import io
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from fmnist.errors import FmnistError


class DamagedFileError(FmnistError):
    """A file could be read, but its content is not what it should be."""


IMAGE_MAGIC = 0x00000803
LABEL_MAGIC = 0x00000801
IMAGE_SIZE = 28
MAX_DEFLATE_RATIO = 1032
"""No deflate stream grows by more than this when it is unpacked (zlib's technical notes)."""
MAX_IMAGES = 1_000_000
"""The largest set of this form, EMNIST, has 814,255. A gzip bomb would have many more."""
CHUNK_BYTES = 2**20


def read(path: Path) -> bytes:
    """Read an IDX file, gzipped or plain, and check that its header and its length agree.

    Memory is taken only for what is really there, never beyond what the header declares, and not at all if the file
    on disk cannot hold so much.

    Args:
        path: the file; it is unpacked if its name ends in `.gz`.

    Returns:
        The decompressed bytes, header included.

    Raises:
        FmnistError: naming the file and what is wrong with it; a `DamagedFileError` if it is of no use to anybody.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise DamagedFileError(f"{path} is {kind}, where a file was expected")
        size_on_disk = status.st_size
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            header = file.read(16)
            expected = _expected_size(path, header)
            if expected > size_on_disk * (MAX_DEFLATE_RATIO if path.suffix == ".gz" else 1):
                raise DamagedFileError(
                    f"{path} is truncated: its header promises {expected} bytes, more than it can hold"
                )
            content = _read_at_most(file, header, expected + 1)
    except PermissionError as error:
        raise FmnistError(f"{path} may not be read: permission denied") from error
    except EOFError as error:
        raise DamagedFileError(f"{path} is truncated: its gzip stream stops short") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFileError(f"{path} is damaged or no gzip file ({error})") from error
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP}:
            if path.is_symlink():
                raise DamagedFileError(f"{path} is a link that leads nowhere") from error
            raise FmnistError(f"{path} is not there") from error
        raise FmnistError(f"{path} cannot be read ({error.strerror or error})") from error
    if len(content) != expected:
        problem = "is truncated" if len(content) < expected else "has trailing bytes"
        raise DamagedFileError(f"{path} {problem}: its header promises {expected} bytes")
    return content


def _read_at_most(file: BinaryIO, start: bytes, most: int) -> bytes:
    """Read on piece by piece: asked for everything at once, a file takes the memory before it has the bytes."""
    content = io.BytesIO()
    content.write(start)
    while piece := file.read(max(0, min(CHUNK_BYTES, most - content.tell()))):
        content.write(piece)
    return content.getvalue()


def _expected_size(path: Path, header: bytes) -> int:
    words = [int.from_bytes(header[start : start + 4], "big") for start in range(0, len(header) - 3, 4)]
    if len(words) >= 2 and words[0] in {LABEL_MAGIC, IMAGE_MAGIC} and words[1] > MAX_IMAGES:
        raise DamagedFileError(f"{path} promises {words[1]:,} entries; expected at most {MAX_IMAGES:,}")
    if len(words) >= 2 and words[0] == LABEL_MAGIC:
        return 8 + words[1]
    if len(words) == 4 and words[0] == IMAGE_MAGIC:
        num_images, height, width = words[1:]
        if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
            raise DamagedFileError(f"{path} holds images of {height}x{width}; expected 28x28")
        return 16 + num_images * height * width
    raise DamagedFileError(f"{path} is no IDX file of images or labels: it begins with {header[:4].hex() or 'nothing'}")


def images(path: Path, content: bytes) -> np.ndarray:
    """View the bytes of an image file as an array.

    Args:
        path: where they came from, for the message.
        content: what `read` gave.

    Returns:
        Images of shape (n, 28, 28), uint8, 0 (black ground) to 255.

    Raises:
        FmnistError: if the bytes are those of a label file, or hold no image.
    """
    if int.from_bytes(content[:4], "big") != IMAGE_MAGIC:
        raise FmnistError(f"{path} holds labels, where images were expected")
    if len(content) == 16:
        raise FmnistError(f"{path} holds no images")
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)


def labels(path: Path, content: bytes) -> np.ndarray:
    """View the bytes of a label file as an array.

    Args:
        path: where they came from, for the message.
        content: what `read` gave.

    Returns:
        Labels of shape (n,), uint8, 0 to 9.

    Raises:
        FmnistError: if the bytes are those of an image file, or a label is above 9.
    """
    if int.from_bytes(content[:4], "big") != LABEL_MAGIC:
        raise FmnistError(f"{path} holds images, where labels were expected")
    values = np.frombuffer(content, np.uint8, offset=8)
    if (largest := max(content[8:], default=0)) > 9:
        raise FmnistError(f"{path} holds the label {largest}; expected 0 to 9")
    return values


def sha256(content: bytes) -> str:
    """Hash decompressed bytes: mirrors compress the same content differently, so `.gz` hashes say nothing."""
    return hashlib.sha256(content).hexdigest()
