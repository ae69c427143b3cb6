"""Tables of images: csv, npy and npz, parquet."""

import csv
import json
import math
import tokenize
import zipfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fmnist.config import IMAGE_SIZE
from fmnist.data.blocks import Block, kind_of, part_of
from fmnist.data.formats import (
    DECOMPRESSION_ERRORS,
    HINT,
    MAX_CONTENT_BYTES,
    MAX_DEFLATE_RATIO,
    MAX_IMAGES,
    DamagedFileError,
    open_content,
)
from fmnist.data.pictures import read_picture
from fmnist.errors import FmnistError, one_line

Blocks = dict[str | None, Block]
"""The blocks of a file by part; None is the part that the name of the file says, if any."""

NUM_PIXELS = IMAGE_SIZE**2
NUM_COLUMNS = 1 + NUM_PIXELS
COUNTED = [[str(last - 1), str(last)] for last in (NUM_PIXELS - 1, NUM_PIXELS)]
"""Names of the last two pixels where they are numbers, which no pixels are."""
MAX_LINE_BYTES = 2**15
"""Of a csv file: 784 numbers of 40 characters."""
ROWS_AT_ONCE = 5_000
LABEL_COLUMNS = {"label", "labels", "class", "target", "y"}


class NoLabelsError(FmnistError):
    """A table has images without labels."""


def read_csv(path: Path) -> Blocks:
    """Read a csv file with a row for each image: its label, in the first or the last column, and 784 pixels.

    Args:
        path: with or without a line of column names, separated by comma, semicolon or tab, compressed or not.

    Raises:
        FmnistError: naming the line that has another number of columns or is no number.
    """
    with open_content(path) as file:
        lines = _lines(path, file)
        first = next(lines, "")
        delimiter = max(",;\t", key=first.count)
        # Line by line, because a quote that is never closed would take the rest of the file.
        rows = (next(csv.reader([line], delimiter=delimiter), []) for line in chain([first], lines))
        header = next(rows)
        if len(header) != NUM_COLUMNS:
            without = ": there is no label" if len(header) == NUM_PIXELS else ""
            raise (NoLabelsError if without else FmnistError)(
                f"{path} has {len(header)} columns{without}; expected a label and {NUM_PIXELS} pixels ({IMAGE_SIZE}x"
                f"{IMAGE_SIZE})"
            )
        has_header = _is_header(header)
        label_column = -1 if has_header and header[-1].strip().lower() in LABEL_COLUMNS else 0
        labels: list[str] = []

        def pixels() -> Iterator[str]:
            for number, row in enumerate(rows if has_header else chain([header], rows), 1 + has_header):
                if len(row) == NUM_COLUMNS:
                    labels.append(row.pop(label_column).strip())
                    yield delimiter.join(row)
                elif "".join(row).strip():
                    raise FmnistError(f"{path}, line {number}, has {len(row)} columns; expected {NUM_COLUMNS}; {HINT}")

        images = _parse_pixels(path, pixels(), delimiter)
    return {None: Block(images, parse_text_labels(labels), str(path))}


def _lines(path: Path, file: BinaryIO) -> Iterator[str]:
    encoding = "utf-8-sig"
    while line := file.readline(MAX_LINE_BYTES + 1):
        if b"\r" in line.rstrip(b"\r\n"):
            raise FmnistError(f"{path} has carriage returns for line ends, as on old Macs; save it with others")
        if len(line) > MAX_LINE_BYTES:
            raise FmnistError(f"{path} has a line of more than {MAX_LINE_BYTES:,} bytes; expected a csv file")
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError as error:
            raise FmnistError(f"{path} is no text in UTF-8 ({error}); save it as csv in UTF-8") from error
        encoding = "utf-8"


def _is_header(row: list[str]) -> bool:
    """Check whether a row names the columns. Pixels may have numbers: pandas counts columns without names."""
    return not (_is_number(row[1]) and _is_number(row[-1])) or row[-2:] in COUNTED


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _parse_pixels(path: Path, rows: Iterator[str], delimiter: str) -> np.ndarray:
    """Parse some rows at once, so that memory holds few pixels as text or float."""
    parts: list[np.ndarray] = []
    num_rows = 0
    while block := list(islice(rows, ROWS_AT_ONCE)):
        try:
            values = np.loadtxt(block, np.float32, delimiter=delimiter, ndmin=2, comments=None)
        except ValueError as error:
            raise FmnistError(f"{path}, after {num_rows} images: {one_line(error)}; {HINT}") from error
        num_rows += len(block)
        if num_rows > MAX_IMAGES:
            raise FmnistError(f"{path} has more than {MAX_IMAGES:,} images; expected fewer")
        is_whole = bool(((values == np.floor(values)) & (np.abs(values) < 2**15)).all())
        fits = is_whole and values.min() >= 0 and values.max() <= 255
        parts.append(values.astype(np.uint8 if fits else np.int16) if is_whole else values)
    return np.concatenate(parts) if parts else np.zeros((0, NUM_PIXELS), np.uint8)


def parse_text_labels(labels: list[str]) -> np.ndarray:
    """Return labels that were read as text as integers, if all of them are, also written as `3.0`; else as texts."""
    values = np.array(labels)
    try:
        numbers = values.astype(np.float64)
    except ValueError:
        return values
    is_whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2**63)
    return numbers.astype(np.int64) if is_whole.all() else numbers


def read_npz(path: Path) -> Blocks:
    """Read an npz file with arrays of images and labels, of one part or of training and test.

    Args:
        path: with keys like `x_train`, `train_images`, `test_labels`, or `images` and `labels`. Arrays of other names
            are ignored. Objects, which could contain code, are refused.

    Raises:
        FmnistError: if arrays are missing, declare more than they hold, or cannot be read.
    """
    found: dict[tuple[str | None, str], np.ndarray] = {}
    names = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                names.append(name)
                if (kind := kind_of(name)) and part_of(name) != "validation":
                    if (part_of(name), kind) in found:
                        raise FmnistError(f"{path} has several arrays of {part_of(name) or ''} {kind}; expected one")
                    with archive.open(member) as file:
                        size = min(member.file_size, member.compress_size * MAX_DEFLATE_RATIO + 1_000)
                        found[part_of(name), kind] = read_array(f"{path} ({name})", file, size)
    except DECOMPRESSION_ERRORS as error:
        raise DamagedFileError(f"{path} is damaged or not an npz file ({one_line(error)}); {HINT}") from error
    parts = dict.fromkeys(part for part, _ in found)
    if not found or any((part, kind) not in found for part in parts for kind in ("images", "labels")):
        raise FmnistError(
            f"{path} has the arrays {', '.join(names) or 'none'}; expected x_train, y_train, x_test and y_test"
        )
    return {
        part: Block(found[part, "images"], _decoded(found[part, "labels"]), f"{path} ({part or 'images'})")
        for part in parts
    }


def read_single_array(path: Path) -> np.ndarray:
    """Read an npy file, or an npz file of one array. Errors as in `read_npz`."""
    with open_content(path) as file:
        return read_array(str(path), file, MAX_CONTENT_BYTES)


def read_array(name: str, file: Any, max_bytes: int) -> np.ndarray:
    """Read an array in NumPy's format, of at most `max_bytes` as its header declares them, and without objects."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
        if dtype.hasobject:
            is_labels = kind_of(name.rpartition("(")[2] or name) == "labels"
            expected = (
                "integers or strings of a fixed length, so store labels.astype(int) or labels.astype(str)"
                if is_labels
                else "numbers, so store images of equal size"
            )
            raise FmnistError(f"{name} contains Python objects; expected {expected}")
        size = math.prod(shape) * dtype.itemsize
        if not 0 <= size <= min(max_bytes, MAX_CONTENT_BYTES):
            raise FmnistError(f"{name} declares {size:,} bytes, more than it can hold or than a data set has")
        content = file.read(size)
        if len(content) < size:
            raise DamagedFileError(f"{name} is truncated; {HINT}")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise DamagedFileError(f"{name} is damaged or no array of numbers ({one_line(error)}); {HINT}") from error


def _decoded(labels: np.ndarray) -> np.ndarray:
    """Return labels of bytes or texts as `parse_text_labels` does, and others unchanged."""
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    return parse_text_labels(labels.ravel().tolist()) if labels.dtype.kind == "U" else labels


def read_parquet(path: Path) -> Blocks:
    """Read a parquet file of a Hugging Face data set: pictures in a column `image`, integers in a column `label`.

    Raises:
        FmnistError: if pyarrow is not installed, columns are missing, or a picture cannot be read.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise FmnistError(f"{path} needs the package pyarrow; `pip install pyarrow` installs it") from error
    images: list[np.ndarray] = []
    labels: list[Any] = []
    try:
        file = parquet.ParquetFile(path)
        columns = {kind_of(name): name for name in reversed(file.schema_arrow.names) if kind_of(name)}
        if columns.keys() != {"images", "labels"} or file.metadata.num_rows > MAX_IMAGES:
            raise FmnistError(
                f"{path} has the columns {', '.join(file.schema_arrow.names)} and {file.metadata.num_rows:,} rows; "
                f"expected image and label, and at most {MAX_IMAGES:,} rows"
            )
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE // 10, columns=list(columns.values())):
            values = batch.to_pydict()
            images += [_picture(path, value, len(images)) for value in values[columns["images"]]]
            labels += values[columns["labels"]]
        names = _hugging_face_names(file.schema_arrow.metadata or {}, columns["labels"])
    except (pyarrow.ArrowException, OSError) as error:
        raise DamagedFileError(f"{path} is damaged or not a parquet file ({one_line(error)}); {HINT}") from error
    pixels = np.stack(images) if images else np.zeros((0, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    return {None: Block(pixels, _decoded(np.array(labels)), str(path), names)}


def _picture(path: Path, value: Any, index: int) -> np.ndarray:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise FmnistError(f"{path}, row {index}: a {type(content).__name__}; expected the bytes of a picture")
    try:
        return read_picture(content)
    except FmnistError as error:
        raise FmnistError(f"{path}, row {index}: {error}") from error


def _hugging_face_names(metadata: dict[bytes, bytes], column: str) -> tuple[str, ...] | None:
    """Return the class names in the schema of a parquet file that Hugging Face's package `datasets` has written."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
        return tuple(map(str, names))
    except (KeyError, TypeError, ValueError):
        return None
