"""Reduce a picture file to what its pixels need, and bound its structure, before a decoder reads it.

Decoders are made for the files of cameras. A small hostile file can keep them busy for a minute, by thousands of scans
or millions of empty segments, and odd metadata makes them fail although the pixels are fine. So metadata are removed
here, and only the EXIF orientation is read.
"""

import re
import struct
from collections.abc import Callable

MAX_PARTS = 20_000
"""Segments, chunks, blocks or strips. A PNG of 50 MB in usual chunks of 8 kB has 6,400."""
MAX_SCANS = 100
"""Of a JPEG; cameras and web sites write 1 to 12, and libjpeg-turbo's own tools refuse more than 500 or 1,000."""
MAX_SCANNED_SAMPLES = 800_000_000
"""Samples of all scans of a JPEG together: 50 megapixels in libjpeg's usual progression, about half a second."""

ORIENTATION_TAG = 0x0112
EXIF_HEADER = b"Exif\0\0"

JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])")
JPEG_MARKER_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
JPEG_STANDALONE = {0x01, *range(0xD0, 0xD9)}
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
JPEG_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
JPEG_SCAN, JPEG_END, JPEG_EXIF = 0xDA, 0xD9, 0xE1
JPEG_REMOVED = {*range(0xE1, 0xF0), 0xFE} - {0xEE}
"""Metadata and comments. APP0 (JFIF) and APP14 (Adobe) say how colors are stored."""
GIF_CONTROL = 0xF9
"""Label of the extension with the transparent color."""
PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
TIFF_KEPT = {
    256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 338, 339, 347, 530,
    532,
}  # fmt: skip
"""Tags of size, samples, compression, strips, tiles and colors."""
TIFF_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}
"""Number of each type that libtiff takes for a whole number, and its code in `struct`."""
TIFF_OTHER_TYPES = {2, 5, 7, 10, 11, 12}
TIFF_COMPRESSIONS = {1, 3, 4, 5, 7, 8, 32773, 32946, 50000}
"""None, fax, LZW, JPEG, deflate, PackBits, Zstandard: those that are decoded quickly."""
TIFF_JPEG = 7
MAX_TIFF_SAMPLES = 4
"""Per pixel. Pillow logs an error for more than it reads."""
MAX_TILED_RATIO = 2
"""Pixels of all tiles of a TIFF, relative to those of the picture: libtiff decodes tiles as a whole."""
MIN_TILED_PIXELS = 2048**2
"""So many are always allowed: a small picture may be in one usual tile."""
HEIF_EXIF_ITEM = re.compile(rb"(infe[\x02\x03]\x00\x00[\x00\x01](?:..|....)\x00\x00)Exif", re.DOTALL)


class StructureError(ValueError):
    """A file has more parts than a picture needs, lacks one, or would take long to decode."""


def strip_metadata(content: bytes, format_name: str) -> tuple[bytes, bytes]:
    """Remove the metadata of a picture file.

    Args:
        content: the file.
        format_name: from `picture_formats.identify`.

    Returns:
        A file with the same pixels, its first frame if it is an animation, and the EXIF data that were removed, which
        are empty where there are none or the decoder hands them over unread (WebP).

    Raises:
        StructureError: if the file has more parts than a picture needs, or parts that take long to decode.
        struct.error, IndexError: if it is truncated.
    """
    strip = STRIP.get(format_name)
    return strip(content) if strip else (content, b"")


def read_orientation(exif: bytes) -> int:
    """Read the orientation from EXIF data, and nothing else.

    Returns:
        1 to 8; 1, upright, if there is none or the data are damaged.
    """
    data = exif.removeprefix(EXIF_HEADER)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if not order:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}L", data, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(start + 2, start + 2 + 12 * num_entries, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHL", data, entry)
            if (tag, kind, count) == (ORIENTATION_TAG, 3, 1):
                (value,) = struct.unpack_from(f"{order}H", data, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the data end early
        pass
    return 1


def _strip_jpeg(content: bytes) -> tuple[bytes, bytes]:
    kept, exif, frame = [content[:2]], b"", b""
    marker, position = 0, 2
    for _ in range(MAX_PARTS):
        match = JPEG_MARKER.search(content, position)
        if not match:
            raise StructureError("it has no pixels")
        marker, position = match[1][0], match.end()
        if marker in JPEG_STANDALONE:
            continue
        if marker in {JPEG_SCAN, JPEG_END}:
            break
        (length,) = struct.unpack_from(">H", content, position)
        body = content[position + 2 : position + length]
        if marker in JPEG_FRAMES:
            frame = bytes([marker]) + body
        if marker == JPEG_EXIF and body.startswith(EXIF_HEADER) and not exif:
            exif = body
        if marker not in JPEG_REMOVED:
            kept.append(b"\xff" + content[position - 1 : position + length])
        position += length
    if marker != JPEG_SCAN:
        raise StructureError(f"it has more than {MAX_PARTS:,} segments before its pixels")
    if len(frame) < 7:
        raise StructureError("it has no size")
    _check_scans(content, position - 2, frame)
    return b"".join([*kept, b"\xff", content[position - 1 :]]), exif


def _check_scans(content: bytes, position: int, frame: bytes) -> None:
    """Check the number of scans of a JPEG and what they decode.

    Args:
        content: the file.
        position: of its first scan.
        frame: marker and body of the frame header.
    """
    height, width, num_components = struct.unpack_from(">HHB", frame, 2)
    factors = {frame[at]: frame[at + 1] for at in range(7, len(frame) - 2, 3)}
    areas = {identifier: (value >> 4) * (value & 15) for identifier, value in factors.items()}
    largest = max(areas.values(), default=1) or 1
    if frame[0] not in JPEG_PROGRESSIVE and content[position + 4] == num_components:
        return  # one scan has all; the decoder ignores what follows
    num_scans, samples = 0, 0.0
    for _ in range(MAX_PARTS):
        match = JPEG_MARKER_AFTER_SCAN.search(content, position)
        if not match or match[1][0] == JPEG_END:
            return
        position = match.end()
        if match[1][0] in JPEG_STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", content, position)
        if match[1][0] == JPEG_SCAN:
            num_scans += 1
            components = content[position + 3 : position + 3 + 2 * content[position + 2] : 2]
            samples += width * height * sum(areas.get(component, 1) for component in components) / largest
            if num_scans > MAX_SCANS or samples > MAX_SCANNED_SAMPLES:
                raise StructureError(f"it has too many scans for its size, {num_scans} or more; save it again")
        position += length
    raise StructureError(f"it has more than {MAX_PARTS:,} segments")


def _strip_png(content: bytes) -> tuple[bytes, bytes]:
    kept, exif = [content[:8]], b""
    position = 8
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">L4s", content, position)
        end = position + length + 12
        if kind in PNG_KEPT:
            kept.append(content[position:end])
        elif kind == b"eXIf" and not exif:
            exif = content[position + 8 : end - 4]
        if kind == b"IEND" or end >= len(content):
            return b"".join(kept), exif
        position = end
    raise StructureError(f"it has more than {MAX_PARTS:,} chunks")


def _strip_gif(content: bytes) -> tuple[bytes, bytes]:
    """Remove comments and other extensions before the first frame, but for the one with its transparency."""
    flags = content[10]
    header = content[: 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)]
    control = b""
    position = len(header)
    is_extension = False
    for _ in range(MAX_PARTS):
        if is_extension:
            size = content[position]
            position += 1 + size
            is_extension = size > 0
        elif content[position] == ord(","):
            return header + control + content[position:], b""
        elif content[position] == ord("!"):
            if content[position + 1] == GIF_CONTROL:
                control = content[position : position + 8]
            position += 2
            is_extension = True
        else:
            raise StructureError("it has no pixels")
    raise StructureError(f"it has more than {MAX_PARTS:,} blocks before its pixels")


def _strip_tiff(content: bytes) -> tuple[bytes, bytes]:
    """Write a directory of the needed tags alone to the end of the file, and let the header point to it."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}L", content, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", content, start)
    entries: dict[int, bytes] = {}
    values: dict[int, tuple[int, ...]] = {}
    for position in range(start + 2, start + 2 + 12 * num_entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHL", content, position)
        if tag not in TIFF_KEPT or tag in entries or kind not in TIFF_INTEGERS.keys() | TIFF_OTHER_TYPES:
            continue
        if count > MAX_PARTS:
            raise StructureError(f"its tag {tag} has more than {MAX_PARTS:,} values")
        entries[tag] = content[position : position + 12]
        if kind in TIFF_INTEGERS:
            code, at = f"{order}{count}{TIFF_INTEGERS[kind]}", position + 8
            if struct.calcsize(code) > 4:
                (at,) = struct.unpack_from(f"{order}L", content, at)
            values[tag] = struct.unpack_from(code, content, at)
    _check_tiff(content, values)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    padding = bytes(len(content) % 2)
    header = content[:4] + struct.pack(f"{order}L", len(content) + len(padding))
    return header + content[8:] + padding + directory, content


def _check_tiff(content: bytes, values: dict[int, tuple[int, ...]]) -> None:
    """Refuse a TIFF that would take long to decode.

    Args:
        content: the file.
        values: tag to its whole numbers.
    """
    if sum(values.get(279, ())) + sum(values.get(325, ())) > len(content):
        raise StructureError("its strips are longer than the file")
    if max(values.get(277, ()), default=1) > MAX_TIFF_SAMPLES:
        raise StructureError(f"it has more than {MAX_TIFF_SAMPLES} samples per pixel")
    width, height, tile_width, tile_height = (max(values.get(tag, ()), default=1) for tag in (256, 257, 322, 323))
    if min(tile_width, tile_height) < 1:
        raise StructureError("it has tiles without pixels")
    tiled_pixels = -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height
    if tiled_pixels > max(MAX_TILED_RATIO * width * height, MIN_TILED_PIXELS):
        raise StructureError("its tiles are much larger than the picture; save it again without tiles")
    compression = values.get(259, (1,))[:1]
    if not set(compression) <= TIFF_COMPRESSIONS:
        raise StructureError("its compression is not supported; save it again with another")
    if compression == (TIFF_JPEG,) and re.search(rb"\xff[\xc2\xc6\xca\xce]\0", content):
        raise StructureError("its compression, progressive JPEG, is not supported; save it again with another")


def _strip_bmp(content: bytes) -> tuple[bytes, bytes]:
    if struct.unpack_from("<L", content, 14)[0] >= 40 and struct.unpack_from("<L", content, 30)[0] in {1, 2}:
        raise StructureError("run-length compression is not supported; save it again without compression")
    return content, b""


def _hide_heif_exif(content: bytes) -> tuple[bytes, bytes]:
    """Rename the EXIF items of AVIF and HEIC, whose decoders read the orientation from the container."""
    return HEIF_EXIF_ITEM.sub(rb"\1skip", content), b""


STRIP: dict[str, Callable[[bytes], tuple[bytes, bytes]]] = {
    "JPEG": _strip_jpeg, "PNG": _strip_png, "GIF": _strip_gif, "TIFF": _strip_tiff, "BMP": _strip_bmp,
    "AVIF": _hide_heif_exif, "HEIF": _hide_heif_exif,
}  # fmt: skip
