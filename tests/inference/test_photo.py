"""Reading pictures, segmentation and rendering, on pictures drawn here."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageFilter

from fmnist.errors import FmnistError
from fmnist.inference import photo

EXIF_ORIENTATION = 0x0112


def garment(image: np.ndarray, edge: int = 280) -> tuple[Image.Image, Image.Image]:
    """Enlarge an image of the data set to a dark garment: its gray values and its mask."""
    large = Image.fromarray(image).resize((edge, edge), Image.Resampling.BICUBIC)
    return Image.eval(large, lambda value: 255 - value), large.point(lambda value: 255 * (value > 40))


def place(image: np.ndarray, background: Image.Image, tint=(1.0, 1.0, 1.0)) -> Image.Image:
    """Paste an image of the data set, as a tinted garment, into the middle of a background."""
    gray, mask = garment(image)
    colors = Image.merge("RGB", [Image.eval(gray, lambda value, factor=factor: int(value * factor)) for factor in tint])
    scene = background.copy()
    scene.paste(colors, ((scene.width - 280) // 2, (scene.height - 280) // 2), mask)
    return scene


def plain(color) -> Image.Image:
    return Image.new("RGB", (420, 400), color)


def textured(color, strength=18) -> Image.Image:
    """Draw noise that looks like carpet."""
    noise = np.random.default_rng(0).normal(0, strength, (400, 420, 1))
    pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))


def boards() -> Image.Image:
    """Draw a wooden floor with joints."""
    pixels = np.array(textured((196, 160, 110), 8))
    pixels[:, ::60] = (120, 90, 60)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def trousers(fashion):
    """A bright training image of the class Trouser."""
    images = fashion.train_images[fashion.train_labels == 1]
    return images[np.argmax(images[:200].mean(axis=(1, 2)))]


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the intersection over union of two silhouettes."""
    first, second = first > 20, second > 20
    return (first & second).sum() / (first | second).sum()


BACKGROUNDS = {
    "white": plain((253, 253, 253)),
    "a red sheet": plain((170, 40, 60)),
    "a carpet": textured((200, 190, 170)),
    "a coarse carpet": textured((180, 200, 170), 30),
    "boards": boards(),
}


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (0.3, 0.4, 0.9)], ids=["gray", "blue"])
def test_a_garment_is_segmented_on_any_background(trousers, background, tint):
    conversion = photo.convert(place(trousers, BACKGROUNDS[background], tint))
    assert conversion.problem is None
    assert overlap(conversion.pixels, trousers) > 0.85


@pytest.mark.parametrize("index", range(40))
def test_a_product_shot_returns_to_the_original_pixels(fashion, index):
    """An enlarged training image on white is rendered to nearly the same pixels."""
    image = fashion.train_images[index]
    large = Image.eval(Image.fromarray(image), lambda value: 255 - value)
    shot = Image.new("RGB", (360, 360), "white")
    shot.paste(large.resize((280, 280), Image.Resampling.NEAREST), (40, 40))
    pixels = photo.convert(shot).pixels
    assert np.corrcoef(pixels.ravel(), image.ravel())[0, 1] > 0.7  # sharpened twice, so not the same
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_the_longest_edge_is_28_and_an_odd_margin_is_wider_on_the_left():
    scene = plain("white")
    scene.paste((20, 20, 20), (150, 60, 150 + 110, 60 + 280))
    pixels = photo.convert(scene).pixels
    columns = np.flatnonzero(pixels.any(axis=0))
    assert pixels.any(axis=1).all()
    assert len(columns) == 11
    assert (columns[0], 27 - columns[-1]) == (9, 8)


def test_mirrored_and_exif_rotated_pictures_give_the_same_pixels(trousers):
    scene = place(trousers, BACKGROUNDS["a carpet"])
    pixels = photo.convert(scene).pixels
    mirrored = photo.convert(scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).pixels
    assert overlap(pixels, mirrored[:, ::-1]) > 0.85
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # rotate by 90 degrees clockwise
    rotated = scene.transpose(Image.Transpose.ROTATE_90)
    content = encode(rotated, "JPEG", exif=exif, quality=95)
    assert photo.read(content).size == scene.size
    assert overlap(photo.convert(photo.read(content)).pixels, pixels) > 0.9


def test_light_garments_are_rendered_bright_on_black_too(trousers):
    _, mask = garment(trousers)
    scene = textured((60, 50, 40), 8)
    scene.paste((225, 225, 215), (70, 60), mask)
    pixels = photo.convert(scene).pixels
    assert overlap(pixels, trousers) > 0.85
    assert pixels[pixels > 0].mean() > 100


def test_transparent_parts_are_background(trousers):
    _, mask = garment(trousers)
    scene = Image.new("RGBA", mask.size, (250, 250, 250, 0))  # too light to be found on white
    scene.putalpha(mask)
    conversion = photo.convert(photo.read(encode(scene, "PNG")))
    assert overlap(conversion.pixels, trousers) > 0.85


def test_an_image_of_the_data_set_is_used_unchanged(fashion):
    image = fashion.train_images[0]
    conversion = photo.convert(photo.read(encode(Image.fromarray(image), "PNG")))
    np.testing.assert_array_equal(conversion.pixels, image)
    assert conversion.problem is None


def test_steps_are_small_pictures_in_order(trousers):
    conversion = photo.convert(place(trousers, BACKGROUNDS["boards"]).resize((1680, 1600)))
    assert list(conversion.steps) == ["original", "mask", "crop", "28x28"]
    assert all(max(step.size) <= photo.PREVIEW_EDGE for step in conversion.steps.values())
    np.testing.assert_array_equal(np.asarray(conversion.steps["28x28"]), conversion.pixels)
    sheet = photo.contact_sheet(conversion.steps, 100)
    assert sheet.size == (400, 100)
    enlarged = np.asarray(sheet.convert("L"))[:, 300:]
    # The 28x28 pixels stay visible as squares: no value between two pixels is made up.
    assert set(np.unique(enlarged)) <= {255, *np.unique(np.asarray(conversion.steps["28x28"]))}


def test_conversion_is_deterministic(trousers):
    scene = place(trousers, BACKGROUNDS["a coarse carpet"])
    np.testing.assert_array_equal(photo.convert(scene).pixels, photo.convert(scene).pixels)


@pytest.mark.parametrize("background", ["white", "a red sheet"])
def test_nothing_is_found_in_an_empty_picture(background):
    conversion = photo.convert(BACKGROUNDS[background])
    assert conversion.problem == photo.NOTHING_FOUND
    assert conversion.pixels.shape == (28, 28)


def test_a_garment_that_is_cut_off_touches_the_border():
    scene = textured((200, 190, 170), 6)
    scene.paste((30, 40, 90), (40, 120, 380, 400))
    assert photo.convert(scene).problem == photo.TOUCHES_BORDER


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
    picture = photo.read(encode(image, file_format))
    assert (picture.size, picture.mode) == ((60, 40), mode)
    assert photo.convert(picture).pixels.shape == (28, 28)


def test_sixteen_bits_keep_their_brightness():
    assert np.asarray(photo.read(encode(sixteen_bits(), "PNG"))) == pytest.approx(40_000 / 257, abs=1)


@pytest.mark.parametrize("file_format", ["WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_read(file_format):
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue")]
    content = encode(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
    assert photo.read(content).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def png_with_claimed_size(width: int, height: int) -> bytes:
    """Return a tiny PNG whose header claims a size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


VALID_JPEG = encode(textured((200, 100, 50)), "JPEG")
INVALID_PICTURES = {
    "empty": (b"", "is empty; expected a picture"),
    "text": (b"hello, this is not a picture at all", "is not a picture; expected JPEG, PNG, WEBP"),
    "a PDF": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "is not a picture"),
    "HTML": (b"<!DOCTYPE html><html></html>", "is not a picture"),
    "another format": (encode(Image.new("L", (60, 40)), "GIF"), "is not a picture"),
    "half a JPEG": (VALID_JPEG[: len(VALID_JPEG) // 2], "cannot be read as a picture"),
    "the head of a PNG": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not a picture|cannot be read"),
    "half a PNG": (encode(textured((9, 9, 9)), "PNG")[:9_000], "cannot be read as a picture"),
    "half a WebP": (encode(textured((9, 9, 9)), "WEBP")[:900], "not a picture|cannot be read"),
    "one pixel": (encode(Image.new("L", (1, 1)), "PNG"), "1x1 pixels; expected at least 28 each way"),
    "one pixel wide": (encode(Image.new("L", (1, 20_000)), "PNG"), "1x20000 pixels; expected at least 28 each way"),
    "25 megapixels": (png_with_claimed_size(5_000, 5_000), "5000x5000 pixels; expected at most 24 megapixels"),
    "144 megapixels": (png_with_claimed_size(12_000, 12_000), "at most 24 megapixels"),
    "3600 megapixels": (png_with_claimed_size(60_000, 60_000), "at most 24 megapixels"),
    "the head of a HEIC": (heic(textured((9, 9, 9)))[:40], "is not a picture"),
    "half a HEIC": (heic(textured((9, 9, 9)))[:9_000], "cannot be read as a picture"),
}


@pytest.mark.parametrize("case", INVALID_PICTURES)
def test_an_invalid_picture_is_refused_in_one_line(case, tmp_path):
    content, expected = INVALID_PICTURES[case]
    with pytest.raises(FmnistError, match=expected) as caught:
        photo.read(content, "upload")
    assert str(caught.value).startswith("upload ")
    assert "\n" not in str(caught.value)
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(FmnistError, match=expected) as caught:
        photo.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("error", [struct.error("bad"), RuntimeError("Security limit exceeded")])
def test_any_error_of_a_decoder_becomes_one_line(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(photo.ImageOps, "exif_transpose", fail)
    with pytest.raises(FmnistError, match=r"upload cannot be read as a picture \(.*\); it may be damaged"):
        photo.read(VALID_JPEG, "upload")


def test_heic_is_rotated_by_its_exif(tmp_path):
    """An iPhone stores the picture as the sensor sees it, and the rotation as EXIF."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    picture = Image.fromarray(np.zeros((60, 90, 3), np.uint8))
    picture.paste((250, 250, 250), (0, 0, 30, 30))
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(heic(picture, exif=exif.tobytes()))
    upright = photo.read(path)
    assert upright.size == (60, 90)
    assert np.asarray(upright)[15, 45].min() > 240
    assert np.asarray(upright)[15, 15].max() < 10


def test_the_error_for_heic_without_its_decoder_names_the_package(monkeypatch):
    monkeypatch.setattr("fmnist.inference.photo.find_spec", lambda name: None)
    with pytest.raises(FmnistError, match=r"looks like HEIC; `pip install 'fmnist\[heic\]'` installs"):
        photo.read(heic(textured((9, 9, 9))), "upload")


def test_a_path_that_is_no_usable_file_is_refused(tmp_path):
    (tmp_path / "large.jpg").write_bytes(b"")
    with (tmp_path / "large.jpg").open("r+b") as file:
        file.truncate(photo.MAX_BYTES + 1)
    for path, expected in [
        (tmp_path, "is a folder; expected a regular file"),
        (tmp_path / "none.jpg", "is missing; name a picture file"),
        (tmp_path / "large.jpg", "bytes; expected at most"),
    ]:
        with pytest.raises(FmnistError, match=expected):
            photo.read(path)
