"""Segmentation and rendering, on pictures drawn here."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fmnist.errors import FmnistError
from fmnist.inference import photo, picture

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
    assert picture.read(content).size == scene.size
    assert overlap(photo.convert(picture.read(content)).pixels, pixels) > 0.9


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
    conversion = photo.convert(picture.read(encode(scene, "PNG")))
    assert overlap(conversion.pixels, trousers) > 0.85


def test_steps_are_small_pictures_in_order(trousers):
    conversion = photo.convert(place(trousers, BACKGROUNDS["boards"]).resize((1680, 1600)))
    assert list(conversion.steps) == ["original", "mask", "crop", "28x28"]
    assert all(max(step.size) <= photo.PREVIEW_EDGE for step in conversion.steps.values())
    np.testing.assert_array_equal(np.asarray(conversion.steps["28x28"]), conversion.pixels)


def test_conversion_is_deterministic(trousers):
    scene = place(trousers, BACKGROUNDS["a coarse carpet"])
    np.testing.assert_array_equal(photo.convert(scene).pixels, photo.convert(scene).pixels)


@pytest.mark.parametrize("background", ["white", "a red sheet"])
def test_nothing_is_found_in_an_empty_picture(background):
    conversion = photo.convert(BACKGROUNDS[background])
    assert conversion.problem == photo.NOTHING_FOUND
    assert conversion.pixels.shape == (28, 28)


def test_the_edge_that_cuts_a_garment_off_is_named():
    scene = textured((200, 190, 170), 6)
    scene.paste((30, 40, 90), (40, 120, 380, 400))
    assert photo.convert(scene).problem == "cut off at the lower edge: step back"


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def large(image: np.ndarray, factor: int, resampling: Image.Resampling) -> Image.Image:
    return Image.fromarray(image).resize((28 * factor, 28 * factor), resampling)


def of_16_bits(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image.astype(np.uint16) * 257)


SMOOTH = ("BILINEAR", "BICUBIC", "LANCZOS", "HAMMING")
SAME_PIXELS = {
    "gray PNG": lambda image: encode(Image.fromarray(image), "PNG"),
    "RGB PNG": lambda image: encode(Image.fromarray(image).convert("RGB"), "PNG"),
    "RGBA PNG": lambda image: encode(Image.fromarray(image).convert("RGBA"), "PNG"),
    "LA PNG": lambda image: encode(Image.fromarray(image).convert("LA"), "PNG"),
    "palette PNG": lambda image: encode(Image.fromarray(image).convert("P"), "PNG"),
    "16-bit PNG": lambda image: encode(of_16_bits(image), "PNG"),
    "0 to 255 in 16 bits": lambda image: encode(Image.fromarray(image.astype(np.uint16)), "PNG"),
    "0 to 1 in a TIFF": lambda image: encode(Image.fromarray((image / 255).astype(np.float32)), "TIFF"),
    "lossless WebP": lambda image: encode(Image.fromarray(image).convert("RGB"), "WEBP", lossless=True),
    "BMP": lambda image: encode(Image.fromarray(image), "BMP"),
    "GIF": lambda image: encode(Image.fromarray(image), "GIF"),
    "TIFF": lambda image: encode(Image.fromarray(image), "TIFF"),
    **{
        f"{factor} times, nearest": lambda image, factor=factor: encode(
            large(image, factor, Image.Resampling.NEAREST), "PNG"
        )
        for factor in (2, 5, 10, 50)
    },
}
SIMILAR_PIXELS = {
    "WebP": lambda image: encode(Image.fromarray(image).convert("RGB"), "WEBP", quality=90),
    "JPEG": lambda image: encode(Image.fromarray(image).convert("RGB"), "JPEG", quality=90),
    "10 times, nearest, JPEG": lambda image: encode(large(image, 10, Image.Resampling.NEAREST), "JPEG"),
    "256 pixels": lambda image: encode(Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC), "PNG"),
    **{
        f"{factor} times, {name}": lambda image, factor=factor, name=name: encode(
            large(image, factor, Image.Resampling[name]), "PNG"
        )
        for factor in (2, 5, 10)
        for name in SMOOTH
    },
}


@pytest.mark.parametrize("encoding", [*SAME_PIXELS, *SIMILAR_PIXELS])
def test_an_image_of_the_data_set_is_recognized_in_any_encoding(fashion, encoding):
    for image in fashion.train_images[:10]:
        content = {**SAME_PIXELS, **SIMILAR_PIXELS}[encoding](image)
        conversion = photo.convert(picture.read(content))
        assert (conversion.kind, conversion.problem) == ("image", None)
        difference = np.abs(conversion.pixels.astype(int) - image)
        assert difference.mean() <= (0 if encoding in SAME_PIXELS else 5)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
@pytest.mark.parametrize("factor", [1, 10])
def test_an_image_on_white_is_negated(fashion, mode, factor):
    for image in fashion.train_images[:10]:
        on_white = large(255 - image, factor, Image.Resampling.NEAREST).convert(mode)
        conversion = photo.convert(picture.read(encode(on_white, "PNG")))
        assert (conversion.kind, conversion.problem) == ("product shot", photo.FEW_PIXELS)
        assert np.corrcoef(conversion.pixels.ravel(), image.ravel())[0, 1] > 0.95  # it is stretched to 255
        assert conversion.pixels.max() == 255


def test_a_photo_of_few_pixels_has_a_problem(fashion):
    gray = 255 - fashion.train_images[0]
    tinted = np.dstack([gray, gray, np.maximum(gray, 120)])
    assert photo.convert(Image.fromarray(tinted)).problem == photo.FEW_PIXELS
    assert photo.convert(Image.fromarray(tinted), "photo").problem == photo.FEW_PIXELS
    assert photo.convert(Image.fromarray(tinted).resize((280, 280))).problem is None


def test_no_enlarged_image_is_said_to_have_few_pixels(fashion):
    """A larger copy of the file would not help."""
    on_white = large(255 - fashion.train_images[0], 10, Image.Resampling.BICUBIC)
    assert photo.convert(on_white).problem == "too few details; a sharper or larger photo would help"


def test_an_empty_image_on_white_has_a_problem():
    assert photo.convert(Image.new("L", (28, 28), 255)).problem == photo.NOTHING_FOUND


def test_images_of_other_data_sets_may_be_on_white(fashion):
    on_white = Image.fromarray(255 - fashion.train_images[0])
    conversion = photo.convert(on_white, is_garment=False)
    assert conversion.kind == "image"
    np.testing.assert_array_equal(conversion.pixels, np.asarray(on_white))


NO_IMAGES = {
    "colors": Image.fromarray(np.tile(np.uint8([[[200, 40, 40]], [[0, 0, 0]]]), (14, 28, 1))),
    "not square": Image.new("L", (56, 84)),
    "details": Image.effect_noise((280, 280), 80),
    "a blurred gray photo": Image.effect_noise((280, 280), 80).filter(ImageFilter.GaussianBlur(2)),
    "transparent parts": Image.new("RGBA", (28, 28), (90, 90, 90, 100)),
}


@pytest.mark.parametrize("case", NO_IMAGES)
def test_other_pictures_are_no_images_of_the_data_set(case):
    assert photo.convert(NO_IMAGES[case]).kind != "image"


def test_a_gray_square_photo_on_black_is_no_image_of_the_data_set(trousers):
    """Its details are finer than 28x28 pixels can be."""
    scene = place(trousers, textured((8, 8, 8), 2)).crop((0, 0, 400, 400)).convert("L")
    noise = np.random.default_rng(0).normal(0, 25, (400, 400)) * (np.asarray(scene) > 60)
    noisy = Image.fromarray(np.clip(np.asarray(scene) + noise, 0, 255).astype(np.uint8))
    assert photo.convert(noisy).kind == "photo"


def test_the_kind_can_be_given(trousers):
    image = Image.fromarray(trousers)
    assert photo.convert(image, "photo").kind == "photo"
    scene = place(trousers, plain("white"))
    assert photo.convert(scene).kind == "product shot"
    with pytest.raises(FmnistError, match="has 420x400 pixels, and an image of the data set is square"):
        photo.convert(scene, "image")
    conversion = photo.convert(scene.crop((0, 0, 400, 400)), "image")
    assert (conversion.kind, conversion.pixels.shape) == ("image", (28, 28))
    assert conversion.pixels[0, 0] == 255


@pytest.mark.parametrize("hidden", ["black", "green"])
def test_colors_below_transparent_parts_are_not_seen(trousers, hidden):
    scene = place(trousers, BACKGROUNDS["white"]).convert("RGBA")
    mask = Image.new("L", scene.size)
    mask.paste(255, (100, 40, 300, 360))
    scene.putalpha(mask)
    other = Image.composite(scene.convert("RGB"), Image.new("RGB", scene.size, hidden), mask)
    other.putalpha(mask)
    original, changed = (np.asarray(photo.convert(each).steps["original"]) for each in (scene, other))
    np.testing.assert_array_equal(original, changed)
    assert original[0, 0].tolist() == [255, 255, 255]
