"""Read pictures from untrusted sources."""

import contextlib
import io
import math
import os
import re
import threading
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from fmnist.config import IMAGE_SIZE
from fmnist.errors import FmnistError, one_line
from fmnist.files import read_bounded
from fmnist.inference.metadata import StructureError, read_orientation, strip_metadata
from fmnist.inference.picture_formats import EXPECTED, UNREADABLE_PICTURES, describe, identify

MAX_BYTES = 50 * 2**20
"""Limit for files: larger than the JPEG of any common camera."""
MAX_PIXELS = 24_500_000
"""Limit for width times height: cameras of 24 megapixels have up to 24.5."""
MAX_JPEG_PIXELS = 50_500_000
"""The same for a JPEG, which is decoded at a fraction of its size: cameras of 50 megapixels have up to 50.3."""
MAX_DECODED_BYTES = 150_000_000
"""Limit for the pixels of a picture with 16 bits: 24 megapixels of three channels, 18 of four."""
LARGE_PIXELS = 8_000_000
"""Pictures with more pixels are decoded one at a time: the largest take up to 400 MB meanwhile."""
KEPT_EDGE = 640
"""A larger picture is reduced by a whole factor, its shorter edge to no less than this."""
KEPT_PIXELS = 4_000_000
"""A long and narrow picture is reduced further, to at most four times this."""

URL = re.compile(r"(?:https?|ftps?|file|s3|gs):/|data:\w+/", re.IGNORECASE)
"""Beginning of a URL, also as `pathlib` shortens it."""

REDUCIBLE_MODES = {"L", "RGB", "LA", "RGBA"}

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what makes the picture upright."""

Source = str | Path | bytes | IO[bytes] | np.ndarray | Image.Image
"""What a picture can be read from."""

_open_lock = threading.Lock()
"""Warning filters belong to the whole process: two threads must not change and restore them at the same time."""
_large_lock = threading.Lock()


def read(source: Source, name: str = "picture") -> Image.Image:
    """Read a picture from an untrusted source.

    Args:
        source: a path; the content of a file; a file object that is open for reading bytes; a uint8 array, (height,
            width) gray, (height, width, 3) RGB or (height, width, 4) RGBA; or a Pillow image of any mode. A file may
            be JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF, whatever its suffix; also HEIC if `pillow-heif` is installed.
        name: what error messages call `source` if it is no path.

    Returns:
        The first frame or page, upright, in mode `L` (gray), `RGB`, or `RGBA` if parts are transparent. A picture
        whose shorter edge has 1,280 pixels or more is reduced by a whole factor.

    Raises:
        FmnistError: if it is missing, empty, damaged, of another format, under 28 pixels wide or high, over 50
            megapixels (JPEG) or 24 (other formats), over 50 MB, or made to keep a decoder busy.
    """
    match source:
        case str() | Path() if URL.match(str(source)) and not os.path.exists(source):
            raise FmnistError(
                f"{str(source)[:200]} is a URL, which is not read; download the picture and name the file"
            )
        case str() | Path():
            hint = f"name a picture file of at most {MAX_BYTES // 2**20} MB"
            return _decode(read_bounded(Path(source), MAX_BYTES, hint, follow_links=True), str(source))
        case bytes() | bytearray() | memoryview():
            return _decode(bytes(source), name)
        case np.ndarray():
            return _normalize(_from_array(source, name), name)
        case Image.Image():
            return _normalize(source, name)
        case _ if hasattr(source, "read"):
            return _decode(_read_file_object(source, name), name)
    raise FmnistError(
        f"{name} is a {type(source).__name__}; expected a path, bytes, a file object, a NumPy array or a Pillow image"
    )


def _decode(content: bytes, name: str) -> Image.Image:
    if not content:
        raise FmnistError(f"{name} is empty; expected a picture")
    format_name = identify(content)
    if not format_name:
        description = describe(content)
        found = f" ({description})" if description else ""
        what = "a picture that can be read" if description in UNREADABLE_PICTURES else "a picture"
        raise FmnistError(f"{name} is not {what}{found}; expected {EXPECTED}")
    if format_name == "HEIF":
        _register_heif(name)
    with _errors_in_one_line(name):
        stripped, exif = strip_metadata(content, format_name)
        with _open(stripped, format_name) as picture:
            return _normalize(picture, name, exif, may_draft=True)


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    pixels = array.reshape(array.shape[:2]) if array.shape[2:] == (1,) else array
    if pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[2:] in {(3,), (4,)}):
        return Image.fromarray(np.ascontiguousarray(pixels))
    hint = ""
    if array.dtype.kind == "f":
        hint = "; scale it to 0 to 255 and convert it by `.astype('uint8')`"
    elif array.dtype == np.uint8 and array.ndim in {3, 4}:
        hint = "; pass several pictures as a list"
    raise FmnistError(
        f"{name} is an array, {array.dtype} of shape {array.shape}; expected uint8 of shape (height, width) or "
        f"(height, width, 3){hint}"
    )


def _normalize(picture: Image.Image, name: str, exif: bytes = b"", *, may_draft: bool = False) -> Image.Image:
    """Check the size of a picture, decode it, reduce it if it is large, convert its mode, and turn it upright.

    Args:
        picture: may not be decoded yet.
        name: for error messages.
        exif: data that are not in the picture.
        may_draft: whether the picture itself may become smaller. A caller's picture may not.
    """
    _check_size(picture, name)
    is_large = picture.width * picture.height > LARGE_PIXELS
    with _errors_in_one_line(name), _large_lock if is_large else contextlib.nullcontext():
        factor = _reduction(picture)
        # A JPEG can be decoded at a fraction of its size, which takes a fraction of the time.
        if may_draft and factor > 1:
            picture.draft(None, (picture.width // factor, picture.height // factor))
        picture.load()
        # WebP hands its EXIF data over unread. AVIF and HEIC have their orientation from the container.
        exif = exif or picture.info.get("exif") or b""
        result = picture if picture.mode in REDUCIBLE_MODES else _convert_mode(picture)
        if (factor := _reduction(result)) > 1:  # before any copy, because a large picture fills memory
            result = result.reduce(factor)
        result = _convert_mode(result)
        transposition = TRANSPOSITIONS.get(read_orientation(bytes(exif)))
        return result.copy() if transposition is None else result.transpose(transposition)


@contextlib.contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    """Convert whatever a decoder raises for a damaged file to one line."""
    try:
        yield
    except FmnistError:
        raise
    except Image.DecompressionBombError as error:
        raise FmnistError(f"{name} is too large; expected at most {MAX_PIXELS // 10**6} megapixels") from error
    except UnidentifiedImageError as error:
        raise FmnistError(f"{name} cannot be read as a picture (its header is damaged)") from error
    except StructureError as error:
        raise FmnistError(f"{name} cannot be read as a picture: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FmnistError(f"{name} cannot be read as a picture ({reason}); it may be damaged") from error


def _read_file_object(source: IO[bytes], name: str) -> bytes:
    content = bytearray()
    while len(content) <= MAX_BYTES:
        try:
            part = source.read(MAX_BYTES + 1 - len(content))
        except Exception as error:  # of a closed file, a damaged archive, a connection
            raise FmnistError(f"{name} cannot be read ({one_line(error)})") from error
        if not isinstance(part, bytes):
            found = "text" if isinstance(part, str) else f"a {type(part).__name__}"
            raise FmnistError(f"{name} is a file object that returns {found}; open it for reading bytes, mode 'rb'")
        if not part and not content and hasattr(source, "seek"):
            raise FmnistError(f"{name} is empty or at its end; call seek(0) first if it was read before")
        if not part:
            return bytes(content)
        content += part  # a pipe or a connection returns what has arrived
    raise FmnistError(f"{name} has over {MAX_BYTES:,} bytes; expected at most that many")


def _register_heif(name: str) -> None:
    if not find_spec("pillow_heif"):
        raise FmnistError(f"{name} looks like HEIC; `pip install 'fmnist[heic]'` installs its decoder")
    import pillow_heif

    pillow_heif.register_heif_opener()


def _open(content: bytes, format_name: str) -> Image.Image:
    """Read the header of a picture. Pillow's warning about its size is not needed: the size is checked here."""
    with _open_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(content), formats=(format_name,))


def _check_size(picture: Image.Image, name: str) -> None:
    max_pixels = MAX_JPEG_PIXELS if picture.format == "JPEG" else MAX_PIXELS
    num_bits = 16 if any(";16" in str(tile) for tile in getattr(picture, "tile", ())) else 8
    num_bytes = len(picture.getbands()) * num_bits // 8
    if picture.format != "JPEG":
        max_pixels = min(max_pixels, MAX_DECODED_BYTES // num_bytes)
    if picture.width * picture.height > max_pixels:
        raise FmnistError(
            f"{name} has {picture.width}x{picture.height} pixels{' of 16 bits' if num_bits == 16 else ''}; expected at "
            f"most {max_pixels // 10**6} megapixels, so make it smaller"
        )
    if min(picture.size) < IMAGE_SIZE:
        raise FmnistError(
            f"{name} has {picture.width}x{picture.height} pixels; expected at least {IMAGE_SIZE} each way"
        )


def _reduction(picture: Image.Image) -> int:
    """Return the whole factor by which a picture is reduced."""
    return max(min(picture.size) // KEPT_EDGE, math.isqrt(picture.width * picture.height // KEPT_PIXELS), 1)


def _convert_mode(picture: Image.Image) -> Image.Image:
    """Convert CMYK, palettes, 16 bits and other modes to `L`, `RGB` or, if parts are transparent, `RGBA`."""
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_to_bytes(np.asarray(picture)))
    if picture.has_transparency_data:
        colors = picture.convert("RGBA")
        return colors if colors.getchannel("A").getextrema() != (255, 255) else colors.convert("RGB")
    return picture.convert("L" if picture.mode in {"1", "L"} else "RGB")


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale the pixels of a gray picture with 16 bits, or more, to uint8.

    Some programs store 0 to 255, or 0 to 1, in files that could hold more.
    """
    values = np.nan_to_num(values, posinf=0, neginf=0)  # what was not measured
    largest = values.max()
    if largest > 255:
        return (np.clip(values, 0, 65_535).astype(np.uint16) >> 8).astype(np.uint8)
    if values.dtype.kind == "f" and largest <= 1:
        values = 255 * values
    return np.clip(values, 0, 255).astype(np.uint8)


def on_white(picture: Image.Image) -> Image.Image:
    """Return a picture as RGB. Transparent parts become white, whatever color is stored there."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
