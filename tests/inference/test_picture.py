"""Reading pictures of any format and mode, from any source, also hostile ones."""

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageFilter, ImageOps

from fmnist.errors import FmnistError
from fmnist.inference import photo, picture
from fmnist.inference.picture_formats import identify

EXIF_ORIENTATION = 0x0112


def textured(color, strength=18) -> Image.Image:
    """Draw noise that looks like carpet."""
    noise = np.random.default_rng(0).normal(0, strength, (400, 420, 1))
    pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def heic(image: Image.Image, **options) -> bytes:
    pillow_heif.register_heif_opener()
    return encode(image, "HEIF", **options)


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((40, 60), 40_000, np.uint16))


UNUSUAL_MODES = {
    "CMYK": (Image.new("CMYK", (60, 40), (0, 200, 0, 0)), "JPEG", "RGB"),
    "16 bits": (sixteen_bits(), "PNG", "L"),
    "a palette": (Image.new("RGB", (60, 40), "green").quantize(8), "PNG", "RGB"),
    "black and white": (Image.new("1", (60, 40), 1), "PNG", "L"),
    "gray": (Image.new("L", (60, 40), 90), "JPEG", "L"),
    "gray with transparency": (Image.new("LA", (60, 40), (90, 100)), "PNG", "RGBA"),
    "transparent": (Image.new("RGBA", (60, 40), (90, 0, 0, 100)), "WEBP", "RGBA"),
}


@pytest.mark.parametrize("case", UNUSUAL_MODES)
def test_every_mode_is_read(case):
    image, file_format, mode = UNUSUAL_MODES[case]
    decoded = picture.read(encode(image, file_format))
    assert (decoded.size, decoded.mode) == ((60, 40), mode)
    assert photo.convert(decoded).pixels.shape == (28, 28)


def test_sixteen_bits_keep_their_brightness():
    assert np.asarray(picture.read(encode(sixteen_bits(), "PNG"))) == pytest.approx(40_000 / 257, abs=1)


@pytest.mark.parametrize("file_format", ["WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_read(file_format):
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue")]
    content = encode(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
    assert picture.read(content).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def png_with_claimed_size(width: int, height: int) -> bytes:
    """Return a tiny PNG whose header claims a size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


VALID_JPEG = encode(textured((200, 100, 50)), "JPEG")
INVALID_PICTURES = {
    "empty": (b"", "is empty; expected a picture"),
    "text": (
        b"hello, this is not a picture at all",
        r"is not a picture \(a text\); expected JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or HEIC",
    ),
    "a PDF": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "is not a picture"),
    "HTML": (b"<!DOCTYPE html><html></html>", "is not a picture"),
    "another format": (encode(Image.new("L", (60, 40)), "ICO"), r"is not a picture \(an icon\)"),
    "JPEG 2000": (encode(Image.new("L", (60, 40)), "JPEG2000"), r"is not a picture that can be read \(JPEG 2000\)"),
    "a video": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(40), r"is not a picture \(a video\)"),
    "a zip archive": (b"PK\x03\x04" + bytes(40), r"is not a picture \(a zip archive or office document\)"),
    "half a JPEG": (VALID_JPEG[: len(VALID_JPEG) // 2], "cannot be read as a picture"),
    "the head of a PNG": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not a picture|cannot be read"),
    "half a PNG": (encode(textured((9, 9, 9)), "PNG")[:9_000], "cannot be read as a picture"),
    "half a WebP": (encode(textured((9, 9, 9)), "WEBP")[:900], "not a picture|cannot be read"),
    "one pixel": (encode(Image.new("L", (1, 1)), "PNG"), "1x1 pixels; expected at least 28 each way"),
    "one pixel wide": (encode(Image.new("L", (1, 20_000)), "PNG"), "1x20000 pixels; expected at least 28 each way"),
    "25 megapixels": (png_with_claimed_size(5_000, 5_000), "5000x5000 pixels; expected at most 24 megapixels"),
    "144 megapixels": (png_with_claimed_size(12_000, 12_000), "at most 24 megapixels"),
    "3600 megapixels": (png_with_claimed_size(60_000, 60_000), "at most 24 megapixels"),
    "the head of a HEIC": (heic(textured((9, 9, 9)))[:40], "cannot be read as a picture"),
    "half a HEIC": (heic(textured((9, 9, 9)))[:9_000], "cannot be read as a picture"),
}


@pytest.mark.parametrize(
    "source",
    ["https://host.invalid/a.png", Path("HTTP://host.invalid/a.png"), "file:///a.png", "data:image/png;base64,x"],
)
def test_a_url_is_not_read(source):
    with pytest.raises(FmnistError, match="is a URL, which is not read; download the picture and name the file"):
        picture.read(source)


def test_a_file_object_at_its_end_is_named():
    source = io.BytesIO(VALID_JPEG)
    source.read()
    with pytest.raises(FmnistError, match=r"picture is empty or at its end; call seek\(0\) first"):
        picture.read(source)


@pytest.mark.parametrize("case", INVALID_PICTURES)
def test_an_invalid_picture_is_refused_in_one_line(case, tmp_path):
    content, expected = INVALID_PICTURES[case]
    with pytest.raises(FmnistError, match=expected) as caught:
        picture.read(content, "upload")
    assert str(caught.value).startswith("upload ")
    assert "\n" not in str(caught.value)
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(FmnistError, match=expected) as caught:
        picture.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "error", [struct.error("bad"), RuntimeError("Security limit exceeded"), MemoryError(), KeyError(1)]
)
def test_any_error_of_a_decoder_becomes_one_line(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(picture, "_convert_mode", fail)
    with pytest.raises(FmnistError, match=r"upload cannot be read as a picture \(.*\); it may be damaged"):
        picture.read(VALID_JPEG, "upload")


def test_heic_is_rotated_by_its_exif(tmp_path):
    """An iPhone stores the picture as the sensor sees it, and the rotation as EXIF."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    sideways = Image.fromarray(np.zeros((60, 90, 3), np.uint8))
    sideways.paste((250, 250, 250), (0, 0, 30, 30))
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(heic(sideways, exif=exif.tobytes()))
    upright = picture.read(path)
    assert upright.size == (60, 90)
    assert np.asarray(upright)[15, 45].min() > 240
    assert np.asarray(upright)[15, 15].max() < 10


def test_the_error_for_heic_without_its_decoder_names_the_package(monkeypatch):
    monkeypatch.setattr("fmnist.inference.picture.find_spec", lambda name: None)
    with pytest.raises(FmnistError, match=r"looks like HEIC; `pip install 'fmnist\[heic\]'` installs"):
        picture.read(heic(textured((9, 9, 9))), "upload")


def test_a_path_that_is_no_usable_file_is_refused(tmp_path):
    (tmp_path / "large.jpg").write_bytes(b"")
    with (tmp_path / "large.jpg").open("r+b") as file:
        file.truncate(picture.MAX_BYTES + 1)
    for path, expected in [
        (tmp_path, "is a folder; expected a regular file"),
        (tmp_path / "none.jpg", "is missing; name a picture file"),
        (tmp_path / "large.jpg", "bytes; expected at most"),
    ]:
        with pytest.raises(FmnistError, match=expected):
            picture.read(path)


FORMATS = {
    "JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95}, "GIF": {}, "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".jpg", ".dat", ""])
@pytest.mark.parametrize("file_format", [*FORMATS, "HEIF"])
def test_formats_are_recognized_by_content(tmp_path, file_format, suffix):
    path = tmp_path / f"picture{suffix}"
    image = Image.new("RGB", (60, 40), (200, 40, 40))
    path.write_bytes(heic(image) if file_format == "HEIF" else encode(image, file_format, **FORMATS[file_format]))
    pixels = np.asarray(picture.read(path))
    assert pixels.shape == (40, 60, 3)
    assert np.abs(pixels.astype(int) - (200, 40, 40)).max() < 12


def test_avif_with_a_generic_brand_is_no_heic():
    content = encode(Image.new("RGB", (60, 40)), "AVIF")
    assert identify(content[:8] + b"mif1" + content[12:]) == "AVIF"


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_pictures_is_read(file_format):
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue", "green")]
    content = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    red, _, blue = picture.read(content).convert("RGB").getpixel((5, 5))
    assert (red > 200, blue < 50) == (True, True)


def exif(*entries, order=">") -> bytes:
    """Return EXIF data; entries are tag, type, count and the four bytes of the value."""
    header = b"Exif\0\0" + (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}L", 8)
    return header + struct.pack(f"{order}H", len(entries)) + b"".join(
        struct.pack(f"{order}HHL", *entry[:3]) + entry[3] for entry in entries
    )  # fmt: skip


RIGHT, RESOLUTION = 6, 0x011A
ORIENTED = (EXIF_ORIENTATION, 3, 1, b"\0\6\0\0")
EXIF = {
    "orientation": (exif(ORIENTED), RIGHT),
    "little-endian": (exif((EXIF_ORIENTATION, 3, 1, b"\6\0\0\0"), order="<"), RIGHT),
    "a resolution that is text": (exif(ORIENTED, (RESOLUTION, 2, 4, b"abcd")), RIGHT),
    "a resolution without numbers": (exif((RESOLUTION, 5, 0, bytes(4)), ORIENTED), RIGHT),
    "a value far behind the end": (exif((RESOLUTION, 5, 2**32 - 1, b"\xff" * 4), ORIENTED), RIGHT),
    "an unknown type": (exif((RESOLUTION, 99, 1, bytes(4)), ORIENTED), RIGHT),
    "a directory that points to itself": (exif((0x8769, 4, 1, b"\0\0\0\x08"), ORIENTED), RIGHT),
    "orientation 0": (exif((EXIF_ORIENTATION, 3, 1, bytes(4))), 1),
    "orientation 9": (exif((EXIF_ORIENTATION, 3, 1, b"\0\x09\0\0")), 1),
    "orientation as text": (exif((EXIF_ORIENTATION, 2, 4, b"left")), 1),
    "orientation as many numbers": (exif((EXIF_ORIENTATION, 3, 1000, bytes(4))), 1),
    "too many entries": (exif(ORIENTED)[:14] + b"\xff\xff", 1),
    "nothing": (b"Exif\0\0", 1),
    "noise": (b"Exif\0\0" + bytes(range(200)), 1),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("case", EXIF)
def test_only_the_orientation_is_read_and_odd_exif_is_ignored(file_format, case):
    data, orientation = EXIF[case]
    image = Image.new("RGB", (60, 40))
    image.paste((250, 250, 250), (0, 0, 20, 20))
    if file_format == "JPEG":
        plain = encode(image, "JPEG", quality=95)
        content = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + plain[2:]
    elif file_format == "PNG":
        plain = encode(image, "PNG")
        content = plain[:33] + chunk(b"eXIf", data[6:]) + plain[33:]
    else:
        content = encode(image, "WEBP", lossless=True, exif=data)
    upright = picture.read(content)
    assert upright.size == ((40, 60) if orientation == RIGHT else (60, 40))
    corner = (30, 10) if orientation == RIGHT else (10, 10)
    assert upright.getpixel(corner)[0] > 200


def test_a_tiff_is_turned_upright_once():
    image = Image.new("L", (60, 40))
    assert picture.read(encode(image, "TIFF", tiffinfo={EXIF_ORIENTATION: 6})).size == (40, 60)


@pytest.mark.parametrize(("width", "height", "edge"), [(60, 40, 64), (100, 100, 2_048), (2_900, 2_900, 4_096)])
def test_a_tiff_in_one_tile_is_read(width, height, edge):
    assert picture.read(with_tile(width, height, edge)).width >= min(width, 640)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def many_scans() -> bytes:
    """Repeat the last scan of a progressive JPEG of 16 megapixels."""
    content = encode(Image.new("RGB", (4_000, 4_000), "gray"), "JPEG", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * 2_000 + content[-2:]


def before_pixels(extra: bytes, file_format: str) -> bytes:
    content = encode(textured((9, 9, 9)).convert("P" if file_format == "GIF" else "RGB"), file_format)
    at = {"JPEG": 2, "PNG": 33, "GIF": 13 + (6 << (content[10] & 7))}[file_format]
    return content[:at] + extra + content[at:]


def with_directory(num_tags: int) -> bytes:
    """Add tags to a TIFF that all hold its whole content."""
    content = encode(Image.new("L", (1_000, 1_000)), "TIFF")
    tags = b"".join(struct.pack("<HHLL", 60_000 + number % 5_000, 7, 1_000_000, 0) for number in range(num_tags))
    return content[:4] + struct.pack("<L", len(content)) + content[8:] + struct.pack("<H", num_tags) + tags


def with_tag(content: bytes, tag: int, kind: int, value: int) -> bytes:
    """Change the type and value of a tag of a little-endian TIFF."""
    (start,) = struct.unpack_from("<L", content, 4)
    at = next(at for at in range(start + 2, len(content), 12) if content[at : at + 2] == struct.pack("<H", tag))
    return content[:at] + struct.pack("<HHLl", tag, kind, 1, value) + content[at + 12 :]


def lzma_with_a_signed_number() -> bytes:
    """Return a TIFF whose compression has a type that is not usual, but read by Pillow and libtiff."""
    return with_tag(encode(Image.new("L", (60, 40)), "TIFF", compression="lzma"), 259, 9, 34_925)


def with_tile(width: int, height: int, edge: int) -> bytes:
    """Return a gray TIFF in one tile."""
    pixels = zlib.compress(bytes(edge * edge), 9)
    values = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, 322: edge, 323: edge, 324: 8, 325: len(pixels)}
    tags = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<L", 8 + len(pixels)) + pixels + struct.pack("<H", len(values)) + tags + bytes(4)


def more_scans(edge: int, number: int) -> bytes:
    """Repeat the last scan of a progressive JPEG."""
    content = encode(Image.new("RGB", (edge, edge), "gray"), "JPEG", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * number + content[-2:]


def small_tiff(tag: int, value: int) -> bytes:
    return with_tag(encode(Image.new("RGB", (60, 40)), "TIFF"), tag, 4, value)


def run_length_bmp() -> bytes:
    content = encode(Image.new("P", (1_000, 1_000)), "BMP")
    return content[:30] + b"\1\0\0\0" + content[34:]


HOSTILE = {
    "thousands of scans": (many_scans, "too many scans for its size"),
    "empty segments": (lambda: before_pixels(b"\xff\xfe\0\2" * 500_000, "JPEG"), "more than 20,000 segments"),
    "restart markers": (lambda: before_pixels(b"\xff\xd0" * 1_000_000, "JPEG"), "more than 20,000 segments"),
    "fill bytes": (lambda: before_pixels(b"\xff" * 5_000_000, "JPEG"), None),
    "a large comment": (lambda: before_pixels((b"\xff\xfe\xff\xff" + bytes(65_533)) * 140, "JPEG"), None),
    "empty chunks": (lambda: before_pixels(chunk(b"tEXt", b"") * 500_000, "PNG"), "more than 20,000 chunks"),
    "text that expands": (
        lambda: before_pixels(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7))) * 50, "PNG"), None,
    ),
    "comments of a byte": (
        lambda: before_pixels(b"!\xfe" + b"\1a" * 1_000_000 + b"\0", "GIF"), "more than 20,000 blocks",
    ),
    "empty extensions": (lambda: before_pixels(b"!\xfe\0" * 1_000_000, "GIF"), "more than 20,000 blocks"),
    "tags that hold the file": (lambda: with_directory(60_000), "header is damaged"),
    "run lengths": (run_length_bmp, "run-length compression is not supported"),
    "LZMA": (
        lambda: encode(Image.new("L", (60, 40)), "TIFF", compression="lzma"), "its compression is not supported",
    ),
    "scans of a small picture": (lambda: more_scans(60, 120), "too many scans for its size, 101 or more"),
    "scans of a large picture": (lambda: more_scans(4_000, 60), "too many scans for its size"),
    "strips longer than the file": (lambda: small_tiff(279, 10_000_000), "its strips are longer than the file"),
    "samples": (lambda: small_tiff(277, 5), "more than 4 samples per pixel"),
    "LZMA as a signed number": (lzma_with_a_signed_number, "its compression is not supported"),
    "a tile much larger than the picture": (lambda: with_tile(100, 100, 8_192), "tiles are much larger"),
    "tiles without pixels": (lambda: with_tag(with_tile(60, 40, 64), 322, 4, 0), "tiles without pixels"),
    "tiles of negative size": (lambda: with_tag(with_tile(60, 40, 64), 322, 9, -64), "tiles without pixels"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_take_less_than_a_second(case):
    make, expected = HOSTILE[case]
    content = make()
    assert len(content) < 10_000_000
    started = time.thread_time()
    if expected:
        with pytest.raises(FmnistError, match=f"upload cannot be read as a picture.*{expected}"):
            picture.read(content, "upload")
    else:
        assert picture.read(content, "upload").size == (420, 400)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation):
    pixels = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60).astype(np.uint8)
    data = Image.Exif()
    data[EXIF_ORIENTATION] = orientation
    image = Image.open(io.BytesIO(encode(Image.fromarray(pixels), "PNG", exif=data)))
    upright = np.asarray(picture.read(encode(Image.fromarray(pixels), "PNG", exif=data)))
    np.testing.assert_array_equal(upright, np.asarray(ImageOps.exif_transpose(image)))


def test_the_first_exif_data_count():
    content = encode(Image.new("L", (60, 40)), "PNG")
    both = chunk(b"eXIf", exif(ORIENTED)[6:]) + chunk(b"eXIf", exif()[6:])
    assert picture.read(content[:33] + both + content[33:]).size == (40, 60)


def test_a_gif_keeps_its_transparency():
    image = Image.new("P", (60, 40))
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.paste(1, (20, 10, 40, 30))
    assert picture.read(encode(image, "GIF", transparency=0)).mode == "RGBA"


def test_sixteen_bits_are_limited_by_their_bytes():
    content = encode(Image.new("RGBA", (28, 28)), "PNG")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4_800, 4_800, 16, 6, 0, 0, 0))
    with pytest.raises(FmnistError, match="4800x4800 pixels of 16 bits; expected at most 18 megapixels"):
        picture.read(content[:8] + header + content[33:])


def test_a_long_and_narrow_picture_is_reduced():
    assert picture.read(encode(Image.new("L", (40_000, 600)), "PNG")).size == (20_000, 300)


def test_fifty_megapixels_are_read_as_jpeg():
    decoded = picture.read(encode(Image.new("RGB", (6_048, 8_064)), "JPEG"))
    assert decoded.size == (756, 1_008)


def test_a_large_png_is_reduced():
    image = Image.new("L", (2_800, 2_800))
    image.paste(200, (0, 0, 1_400, 1_400))
    pixels = np.asarray(picture.read(encode(image, "PNG")))
    assert pixels.shape == (700, 700)
    assert pixels[:350, :350].min() == 200
    assert pixels[350:].max() == 0


def sources(image: Image.Image, tmp_path):
    content = encode(image, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    return {
        "path": path,
        "string": str(path),
        "bytes": content,
        "bytearray": bytearray(content),
        "BytesIO": io.BytesIO(content),
        "array": np.asarray(image),
        "Pillow image": image,
        "opened Pillow image": Image.open(io.BytesIO(content)),
    }


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_source_gives_the_same_picture(tmp_path, mode):
    image = textured((200, 100, 50)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.new("L", image.size, 90))
    for name, source in sources(image, tmp_path).items():
        decoded = picture.read(source)
        assert decoded.mode == mode, name
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(image), err_msg=name)


@pytest.mark.parametrize("mode", ["1", "P", "PA", "LA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F", "RGBX"])
def test_pillow_images_of_every_mode_are_read(mode):
    assert picture.read(Image.new(mode, (60, 40))).size == (60, 40)


def test_an_open_file_is_read(tmp_path):
    path = sources(textured((200, 100, 50)), tmp_path)["path"]
    with path.open("rb") as file:
        assert picture.read(file).size == (420, 400)
    with pytest.raises(FmnistError, match="picture cannot be read"):
        picture.read(file)


def test_the_image_of_the_caller_keeps_its_size():
    image = Image.open(io.BytesIO(encode(Image.new("RGB", (4_000, 3_000)), "JPEG")))
    assert picture.read(image).size == (1_000, 750)
    assert image.size == (4_000, 3_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_without_a_number_is_black_and_harms_no_other(value):
    pixels = np.tile(np.linspace(0, 1, 60, dtype=np.float32), (40, 1))
    intact = np.asarray(picture.read(Image.fromarray(pixels)))
    pixels[5, 50] = value
    decoded = np.asarray(picture.read(encode(Image.fromarray(pixels), "TIFF"))).copy()
    assert decoded[5, 50] == 0
    decoded[5, 50] = intact[5, 50]
    np.testing.assert_array_equal(decoded, intact)


class InParts(io.BytesIO):
    """A file object that returns what has arrived, as a pipe."""

    def read(self, size=-1):
        return super().read(min(size, 1_000))


class Broken(io.BytesIO):
    """A file object whose source fails."""

    def read(self, size=-1):
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def test_a_file_object_that_returns_parts_is_read_to_its_end():
    assert picture.read(InParts(VALID_JPEG)).size == (420, 400)


def test_a_file_object_with_too_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(picture, "MAX_BYTES", len(VALID_JPEG) - 1)
    for source in (io.BytesIO(VALID_JPEG), InParts(VALID_JPEG)):
        with pytest.raises(FmnistError, match=r"picture has over .* bytes; expected at most that many"):
            picture.read(source)
    monkeypatch.setattr(picture, "MAX_BYTES", len(VALID_JPEG))
    assert picture.read(InParts(VALID_JPEG)).size == (420, 400)


INVALID_SOURCES = {
    "floats": (np.zeros((28, 28)), r"float64 of shape \(28, 28\); expected uint8 .*scale it to 0 to 255"),
    "integers": (np.zeros((28, 28), int), "int64 of shape"),
    "a batch": (np.zeros((2, 28, 28), np.uint8), "pass several pictures as a list"),
    "two channels": (np.zeros((28, 28, 2), np.uint8), "expected uint8 of shape"),
    "a number": (5, "is a int; expected a path, bytes, a file object"),
    "nothing": (None, "is a NoneType; expected a path"),
    "a small array": (np.zeros((20, 28), np.uint8), "28x20 pixels; expected at least 28 each way"),
    "a text file": (io.StringIO("text"), "returns text; open it for reading bytes"),
    "an empty file": (io.BytesIO(), "is empty"),
    "a source that fails": (Broken(), r"cannot be read \(EOFError: Compressed file ended"),
    "an empty path": ("", "is a folder|is missing"),
    "a path with a null byte": ("a\0b", "cannot be read"),
}


@pytest.mark.parametrize("case", INVALID_SOURCES)
def test_invalid_sources_are_refused_in_one_line(case):
    source, expected = INVALID_SOURCES[case]
    with pytest.raises(FmnistError, match=expected):
        picture.read(source)
