"""A stand-in for the photo converter: a square crop, grey, 28x28."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist.errors import FmnistError

MAX_PIXELS = 24_000_000


@dataclass(frozen=True, eq=False)
class Conversion:
    """What became of a picture."""

    pixels: np.ndarray
    steps: dict[str, Image.Image]
    problem: str | None


def read(source: Path | bytes, name: str = "picture") -> Image.Image:
    """Read a picture."""
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise FmnistError(f"{name} has {picture.width}x{picture.height} pixels; expected 24 megapixels at most")
            upright = ImageOps.exif_transpose(picture)
            return upright.convert("RGB") if upright.mode != "L" else upright.copy()
    except UnidentifiedImageError as error:
        raise FmnistError(f"{name} is no picture; expected JPEG, PNG or WebP") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FmnistError(f"{name} cannot be read as a picture ({error})") from error


def convert(image: Image.Image) -> Conversion:
    """Convert a picture."""
    grey = image.convert("L")
    if image.size == (28, 28):
        mask, crop = grey.point(lambda value: 255 * (value > 0)), grey
    else:
        grey = ImageOps.invert(grey)
        mask, crop = grey.point(lambda value: 255 * (value > 100)), ImageOps.fit(grey, (280, 280))
    small = crop.resize((28, 28))
    pixels = np.asarray(small)
    shown = image.copy()
    shown.thumbnail((320, 320))
    crop.thumbnail((320, 320))
    mask.thumbnail((320, 320))
    problem = None if pixels.any() else "nothing found in the picture"
    return Conversion(pixels, {"original": shown, "mask": mask, "crop": crop, "28x28": small}, problem)
