"""The IDX file format: read, check, parse and write files of images and labels, compressed or not."""

import bz2
import errno
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from fmnist.config import IMAGE_SIZE
from fmnist.data.arrays import IMAGE_SHAPES, as_images, as_labels, describe_size
from fmnist.errors import FmnistError
from fmnist.files import UnsuitableFileError, read_bounded

IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""NumPy type by the third byte of an IDX file. The fourth is the number of dimensions."""
IMAGE_MAGIC, LABEL_MAGIC = 0x00000803, 0x00000801
"""The first four bytes of Fashion-MNIST's own files: uint8 in three dimensions, and in one."""
MAX_DIMENSIONS = 4
MAX_HEADER_BYTES = 4 * (1 + MAX_DIMENSIONS)
MAX_IMAGES = 1_000_000
"""The largest data set in this format, EMNIST, has 814,255 images. A gzip bomb would declare many more."""
MAX_CONTENT_BYTES = MAX_IMAGES * IMAGE_SIZE**2 + MAX_HEADER_BYTES
MAX_FILE_BYTES = 2**30
"""Limit on disk: more than `MAX_IMAGES` images take even where gzip cannot compress them."""
MAX_DEFLATE_RATIO = 1032
"""Upper bound of the size of decompressed data over the size of its deflate stream (zlib's technical notes)."""
MAX_XZ_MEMORY = 2**27
"""Bytes that an xz stream may ask for; xz -9 needs 65 MB."""
CHUNK_BYTES = 2**20
HINT = "restore it or use another folder"
GZIP, BZIP2, XZ, ZIP = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"PK\3\4"
"""What compressed files begin with. The suffix of a name says little: browsers unpack, and keep it or not."""

DECOMPRESSION_ERRORS = (
    EOFError,
    OSError,  # gzip and bz2
    RuntimeError,  # zipfile: an encrypted archive or, as NotImplementedError, one with a feature that it lacks
    IndexError,  # zipfile: a file without a name
    ValueError,  # zipfile: wrong offsets
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What Python's modules raise for damaged files."""


class DamagedFileError(FmnistError):
    """A file that can never be used as it is, unlike one that is missing or not readable at the moment."""


def read_idx(path: Path) -> bytes:
    """Read an IDX file, compressed or plain, and check that its size is the one its header declares.

    Memory is bounded by the size on disk plus the size that the header declares. A header that declares more than the
    file can hold is refused before the rest is decompressed.

    Args:
        path: the file. Its first bytes decide whether it is plain, gzip, bzip2, xz or a zip archive of one file.

    Returns:
        The decompressed bytes, header included.

    Raises:
        DamagedFileError: if the file can never be used, naming the file and the problem.
        FmnistError: if it is missing or not readable.
    """
    start = read_start(path)
    if is_compressed(start):
        with open_content(path) as file:
            header = file.read(MAX_HEADER_BYTES)
            ratio = MAX_DEFLATE_RATIO if start.startswith((GZIP, ZIP)) else MAX_CONTENT_BYTES
            declared = _declared_bytes(path, header, path.stat().st_size * ratio)
            content = _read_at_most(file, header, declared + 1)
        _check_size(path, len(content), declared)
        return content
    if path.suffix == ".gz" and start and not _is_idx(start):
        raise DamagedFileError(f"{path} is damaged or not a gzip file: it begins with {start[:4].hex()}")
    size = path.stat().st_size
    _check_size(path, size, _declared_bytes(path, start, size))
    return _read_stored(path)


def is_compressed(start: bytes) -> bool:
    """Check whether the first bytes of a file are those of a supported compression."""
    return start.startswith((GZIP, BZIP2, XZ, ZIP))


def read_start(path: Path) -> bytes:
    """Read the first bytes of a file. Errors as in `read_idx`."""
    return _read_stored(path, MAX_HEADER_BYTES)


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


@contextmanager
def open_content(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed. What is wrong with the compression becomes a `DamagedFileError`."""
    stored = io.BytesIO(_read_stored(path))
    start = stored.getbuffer()[:6].tobytes()
    try:
        if start.startswith(GZIP):
            yield cast(BinaryIO, gzip.GzipFile(fileobj=stored))
        elif start.startswith(BZIP2):
            yield cast(BinaryIO, bz2.BZ2File(stored))
        elif start.startswith(XZ):
            yield cast(BinaryIO, io.BufferedReader(_XzReader(stored.getvalue())))
        elif start.startswith(ZIP):
            yield _open_member(path, zipfile.ZipFile(stored))
        else:
            yield stored
    except EOFError as error:
        raise DamagedFileError(f"{path} is truncated: its {_compression(start)} stream is incomplete") from error
    except DECOMPRESSION_ERRORS as error:
        raise DamagedFileError(f"{path} is damaged or not a {_compression(start)} file ({error})") from error


def _compression(start: bytes) -> str:
    return next(name for name, magic in (("gzip", GZIP), ("bzip2", BZIP2), ("xz", XZ), ("zip", ZIP), ("readable", b""))
                if start.startswith(magic))  # fmt: skip


class _XzReader(io.RawIOBase):
    """An xz stream that may not ask for more than `MAX_XZ_MEMORY`, which `lzma.LZMAFile` cannot limit."""

    def __init__(self, stored: bytes):
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)
        self._next = stored

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._decompressor.eof:
            return 0
        view = memoryview(buffer)
        content = self._decompressor.decompress(self._next, len(view))
        self._next = b""
        if not content and self._decompressor.needs_input:
            raise EOFError
        view[: len(content)] = content
        return len(content)


def _open_member(path: Path, archive: zipfile.ZipFile) -> BinaryIO:
    """Open the only file in a zip archive. Macs add files of their own to archives."""
    members = [each for each in archive.infolist() if not (each.is_dir() or each.filename.startswith("__MACOSX/"))]
    if len(members) != 1 or members[0].compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DamagedFileError(f"{path} is a zip archive of {len(members)} files; unpack it")
    return cast(BinaryIO, archive.open(members[0]))


def _read_at_most(file: BinaryIO, start: bytes, max_bytes: int) -> bytes:
    """Read in chunks: a single read of `max_bytes` would allocate all of it before the data is known to exist."""
    content = io.BytesIO()
    content.write(start)
    while chunk := file.read(max(0, min(CHUNK_BYTES, max_bytes - content.tell()))):
        content.write(chunk)
    return content.getvalue()


def _is_idx(header: bytes) -> bool:
    return header[:2] == b"\0\0" and len(header) >= 4 and header[2] in IDX_TYPES and header[3] > 0


def _shape(path: Path, header: bytes) -> tuple[int, ...]:
    """Return the dimensions that a header declares."""
    num_dimensions = header[3] if _is_idx(header) else 0
    if not 1 <= num_dimensions <= MAX_DIMENSIONS or len(header) < 4 * (1 + num_dimensions):
        if _is_idx(header[3::-1]):
            raise DamagedFileError(
                f"{path} begins with {header[:4].hex()}: an IDX file with the bytes of each number in reverse order; "
                "write its header in big-endian order ('>i4' in NumPy)"
            )
        raise DamagedFileError(
            f"{path} is not an IDX file of images or labels: it begins with {header[:4].hex() or 'nothing'}"
        )
    return tuple(int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(1, num_dimensions + 1))


def _declared_bytes(path: Path, header: bytes, max_bytes: int) -> int:
    """Return the size of the decompressed file that its header declares, at most `max_bytes`."""
    shape = _shape(path, header)
    if shape[0] > MAX_IMAGES:
        raise DamagedFileError(f"{path} declares {shape[0]:,} entries; expected at most {MAX_IMAGES:,}")
    if len(shape) > 2 and shape[1:] not in IMAGE_SHAPES:
        raise DamagedFileError(f"{path} {describe_size(shape)}")
    declared = 4 * (1 + len(shape)) + prod(shape) * np.dtype(IDX_TYPES[header[2]]).itemsize
    if declared > min(max_bytes, MAX_CONTENT_BYTES):
        raise DamagedFileError(f"{path} is truncated: its header declares {declared} bytes, more than it can hold")
    return declared


def _check_size(path: Path, size: int, declared: int) -> None:
    if size != declared:
        problem = "is truncated" if size < declared else "has trailing bytes"
        raise DamagedFileError(f"{path} {problem}: its header declares {declared} bytes")


def parse_array(path: Path, content: bytes) -> np.ndarray:
    """Return the array of an IDX file. It is read-only and shares memory with `content`, as `read_idx` returns it."""
    shape = _shape(path, content[:MAX_HEADER_BYTES])
    return np.frombuffer(content, IDX_TYPES[content[2]], offset=4 * (1 + len(shape))).reshape(shape)


def parse_images(path: Path, content: bytes) -> np.ndarray:
    """Return the images of an IDX file, (n, 28, 28) uint8.

    Args:
        path: the file, for error messages.
        content: its decompressed bytes, as `read_idx` returns them.

    Raises:
        FmnistError: if the file contains labels, no images, or images of another type or size.
    """
    return as_images(parse_array(path, content), str(path))


def parse_labels(path: Path, content: bytes) -> np.ndarray:
    """Return the labels of an IDX file, (n,) uint8, below `MAX_CLASSES`.

    Args:
        path: the file, for error messages.
        content: its decompressed bytes, as `read_idx` returns them.

    Raises:
        FmnistError: if the file contains images, or a label that is too large.
    """
    return as_labels(parse_array(path, content), str(path))
