"""Recognize the format of a file by its content: names, suffixes and content types may be wrong."""

READABLE = {
    "JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "AVIF": "AVIF", "GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF",
    "HEIF": "HEIC",
}  # fmt: skip
"""Pillow's name of each format that is read, and its usual name. HEIC needs `pillow-heif`."""
EXPECTED = f"{', '.join(list(READABLE.values())[:-1])} or {READABLE['HEIF']}"
SUFFIXES = {
    ".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff",
    ".webp",
}  # fmt: skip
"""Suffixes of these formats. In a folder, a file with such a name and other content is an error, not passed over."""
NUM_BYTES = 4096
"""The first bytes of a file, which tell its format."""

SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
)
"""Offset and bytes by which each format is recognized."""
BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIF"),
}
"""ISO base media file format: brand to format. `mif1` and `msf1` may be either, and the compatible brands decide."""
GENERIC_BRANDS = {b"mif1", b"msf1"}
OTHER_CONTENT = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive or office document"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\xd0\xcf\x11\xe0", "an office document"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xffO\xffQ", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\n", "JPEG XL"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"\0\0\x01\0", "an icon"),
    (4, b"ftypcrx", "a camera's raw file"),
    (4, b"ftyp", "a video"),
    (4, b"moov", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (8, b"WAVE", "a sound"),
    (0, b"ID3", "a sound"),
    (0, b"\0\x05\x16\x07", "a macOS resource file"),
)
"""Offset and bytes of what is often found beside pictures, and what to call it."""
UNREADABLE_PICTURES = {"JPEG 2000", "JPEG XL", "BigTIFF", "a camera's raw file"}
"""Of these, the pictures. JPEG 2000 is not read because small files can take long to decode."""


def identify(content: bytes) -> str | None:
    """Return Pillow's name of the format of a picture, one of `READABLE`, from its first bytes; None for others."""
    if content[4:8] == b"ftyp":
        return _identify_brand(content)
    for offset, signature, name in SIGNATURES:
        if content.startswith(signature, offset):
            return name
    return None


def _identify_brand(content: bytes) -> str | None:
    end = min(int.from_bytes(content[:4], "big"), len(content), NUM_BYTES)
    brands = [content[8:12], *(content[start : start + 4] for start in range(16, end - 3, 4))]
    if brands[0] in BRANDS:
        return BRANDS[brands[0]]
    if brands[0] not in GENERIC_BRANDS:
        return None
    return next((BRANDS[brand] for brand in brands if brand in BRANDS), "HEIF")


def describe(content: bytes) -> str | None:
    """Say what a file is that is no readable picture, from its first bytes. None if that is not known."""
    for offset, signature, description in OTHER_CONTENT:
        if content.startswith(signature, offset):
            return description
    if not content:
        return "an empty file"
    try:
        text = content[:NUM_BYTES].decode(errors="strict" if len(content) < NUM_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    return "a text" if all(character.isprintable() or character.isspace() for character in text) else None
