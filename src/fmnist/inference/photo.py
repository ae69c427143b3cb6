"""A photo of a garment, on whatever background, as the 28x28 pixels that a network expects: read, find, render.

The way is that of the data set's own makers (arXiv 1708.07747, section 2): trim to the garment, longest edge 28,
sharpen, centre on a square, negate, stretch to the full range. They had a white background; here the garment has to
be found first, and what is not garment becomes black.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist.errors import FmnistError

FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif")
"""What a folder's pictures are known by."""
SIZE = 28
MAX_BYTES = 50 * 2**20
"""No camera's JPEG of 24 megapixels is as large."""
MAX_PIXELS = 24_000_000
WORKING_EDGE = 160
"""Pixels of the longest edge while the garment is looked for: GrabCut takes 40 ms for these, and 28 are wanted."""
SHOWN_EDGE = 320
PLAIN = 0.05
"""Largest difference from the corner's colour, as a share of the range, that counts as background: the paper's."""
LIGHT = 200
"""A studio's background is lighter; it is what makes the paper's negation and sharpening right."""
ELLIPSE = 0.8
"""Squared radius of the first guess, in half edges: larger than most garments, smaller than the picture."""
SMOOTHING = 0.7
"""Standard deviation in pixels of the result: docs/log.md has what other strengths brought."""
SMALLEST_GARMENT = 0.01
"""Share of the picture; less is a button or a stain."""
LARGEST_GARMENT = 0.98
MOST_OF_BORDER = 0.15
"""Share of the picture's border that a garment may lie on before it counts as cut off."""

DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, RuntimeError, struct.error,
)  # fmt: skip
"""What Pillow and libheif raise at bytes that are not what they say."""

NOTHING_FOUND = "nothing found in the picture"
TOUCHES_BORDER = "touches the border"

# Pillow warns from 89 megapixels on; a picture that only claims to be so large must not reach a decoder either.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Conversion:
    """What became of a photo."""

    pixels: np.ndarray
    """(28, 28) uint8, garment bright on black."""
    steps: dict[str, Image.Image]
    """How it came about: `original`, `mask`, `crop`, `28x28`, in this order, each small enough to show."""
    problem: str | None
    """Why the pixels may not show a whole garment, in words; None if nothing speaks against them."""


def read(source: Path | bytes, name: str = "picture") -> Image.Image:
    """Decode a picture of unknown origin.

    Args:
        source: a file, or its content: JPEG, PNG or WebP; HEIC too where `pillow-heif` is installed.
        name: what to call it in errors, if it is no file.

    Returns:
        The first frame, upright as EXIF says, in mode `L` (grey), `RGB`, or `RGBA` where parts are transparent.
        A large JPEG may come at a half, a quarter or an eighth of its size.

    Raises:
        FmnistError: if it cannot be read, is empty, truncated, of another format, larger than 24 megapixels or
            50 MB, or smaller than 28 pixels either way.
    """
    name = str(source) if isinstance(source, Path) else name
    content = _content(source) if isinstance(source, Path) else source
    if not content:
        raise FmnistError(f"{name} is empty; expected a picture")
    formats = (*FORMATS, *_heic(content, name))
    try:
        with Image.open(io.BytesIO(content), formats=formats) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise FmnistError(
                    f"{name} has {picture.width}x{picture.height} pixels; expected at most "
                    f"{MAX_PIXELS // 10**6} megapixels, so make it smaller"
                )
            if min(picture.size) < SIZE:
                raise FmnistError(
                    f"{name} has {picture.width}x{picture.height} pixels; expected at least {SIZE} each way"
                )
            # JPEG alone can be decoded at a fraction of its size, and in a fraction of the time.
            picture.draft(None, (2 * SHOWN_EDGE, 2 * SHOWN_EDGE))
            picture.load()
            return _plain_mode(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        raise FmnistError(f"{name} is no picture; expected {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise FmnistError(f"{name} is too large; expected at most {MAX_PIXELS // 10**6} megapixels") from error
    except DECODING_ERRORS as error:
        reason = " ".join(str(error).split())
        raise FmnistError(f"{name} cannot be read as a picture ({reason}); it may be damaged") from error


def convert(image: Image.Image) -> Conversion:
    """Turn a photo of a garment into what the network expects.

    Args:
        image: as `read` gives it. One of 28x28 grey pixels (mode `L`) is taken as it is.

    Returns:
        The pixels, and how they came about.
    """
    if (image.mode, image.size) == ("L", (SIZE, SIZE)):
        steps = dict.fromkeys(("original", "mask", "crop", "28x28"), image)
        return Conversion(np.asarray(image).copy(), steps, None)
    small = image.copy()
    small.thumbnail((WORKING_EDGE, WORKING_EDGE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    small = small.resize((max(SIZE, small.width), max(SIZE, small.height)))
    colours, opaque = _colours(small)
    plain = opaque if opaque is not None else _plain_background(colours)
    is_product_shot = plain is not None and colours[0, 0].mean() > LIGHT
    mask = _clean(_cut_out(colours) if plain is None else plain)
    share = mask.mean()
    problem = None
    if not SMALLEST_GARMENT <= share <= LARGEST_GARMENT:
        problem, mask = NOTHING_FOUND, np.ones_like(mask)
    elif _border(mask[1:-1, 1:-1]).mean() > MOST_OF_BORDER:  # GrabCut's own rim is never garment
        problem = TOUCHES_BORDER
    rows, columns = _box(mask)
    pixels = render(colours[rows, columns], mask[rows, columns], is_product_shot=is_product_shot)
    shown = image.convert("RGB")
    shown.thumbnail((SHOWN_EDGE, SHOWN_EDGE))
    crop = np.where(mask[..., None], colours, 255)[rows, columns]
    steps = {
        "original": shown,
        "mask": Image.fromarray(mask.astype(np.uint8) * 255),
        "crop": Image.fromarray(crop),
        "28x28": Image.fromarray(pixels),
    }
    return Conversion(pixels, steps, problem)


def render(colours: np.ndarray, mask: np.ndarray, is_product_shot: bool) -> np.ndarray:
    """Make the data set's kind of image of a garment that has been cut out.

    A product shot is sharpened, as the paper does. A photo has folds, shadows and prints that a studio has not: it
    is smoothed, within the outline, which stays crisp.

    Args:
        colours: (height, width, 3) uint8, trimmed to the garment.
        mask: (height, width) bool, where it is.
        is_product_shot: whether it lay on a plain, light background.

    Returns:
        (28, 28) uint8: longest edge 28, an odd margin with its extra pixel left or above, negated, stretched to 255.
    """
    import cv2

    height, width = mask.shape
    scale = SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    cover = mask.astype(np.float32)
    negative = np.where(mask, 255 - cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), 0).astype(np.float32)
    if not is_product_shot:
        sigma = SMOOTHING / scale
        # At its very edge a garment has taken on the colour of the ground; where it is thin, that has to do.
        inner = cv2.erode(cover, np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=0) + 0.01 * cover
        weights = np.maximum(cv2.GaussianBlur(inner, (0, 0), sigma), 1e-4)
        negative = (cv2.GaussianBlur(negative * inner, (0, 0), sigma) / weights).astype(np.float32)
    small = cv2.resize(negative, size, interpolation=cv2.INTER_AREA)
    if is_product_shot:
        small = 2 * small - cv2.GaussianBlur(small, (3, 3), 1.0, borderType=cv2.BORDER_REPLICATE)
    is_garment = cv2.resize(cover, size, interpolation=cv2.INTER_AREA) > (0.1 if is_product_shot else 0.5)
    above, left = (SIZE - size[1] + 1) // 2, (SIZE - size[0] + 1) // 2
    image = np.zeros((SIZE, SIZE), np.float32)
    image[above : above + size[1], left : left + size[0]] = np.where(is_garment, np.clip(small, 1, 255), 0)
    return np.round(image * (255 / max(image.max(), 1))).astype(np.uint8)


def contact_sheet(steps: dict[str, Image.Image], edge: int = 224) -> Image.Image:
    """Lay the steps of a conversion side by side, each in a square of so many pixels."""
    sheet = Image.new("RGB", (edge * len(steps), edge), "white")
    for number, step in enumerate(steps.values()):
        resampling = Image.Resampling.NEAREST if step.size == (SIZE, SIZE) else Image.Resampling.BICUBIC
        fitted = ImageOps.contain(step.convert("RGB"), (edge - 8, edge - 8), resampling)
        sheet.paste(fitted, (edge * number + (edge - fitted.width) // 2, (edge - fitted.height) // 2))
    return sheet


def _content(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise FmnistError(f"{path} is a folder; name the pictures in it")
        if not path.exists():
            raise FmnistError(f"no picture {path}; check the name")
        if not path.is_file():
            raise FmnistError(f"{path} is no ordinary file; expected a picture")
        if path.stat().st_size > MAX_BYTES:
            raise FmnistError(f"{path} has {path.stat().st_size} bytes; expected a picture of at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise FmnistError(f"{path} cannot be read ({error.strerror}); check its name and permissions") from error


def _heic(content: bytes, name: str) -> tuple[str, ...]:
    """Give the name of Pillow's HEIC reader if this is such a file."""
    if content[4:8] != b"ftyp":
        return ()
    if not find_spec("pillow_heif"):
        raise FmnistError(f"{name} looks like HEIC; `pip install 'fmnist[heic]'` brings what reads it")
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _plain_mode(picture: Image.Image) -> Image.Image:
    """Bring CMYK, palettes, 16 bits and the rest to grey, colour, or colour with transparency."""
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture).astype(np.float32)
        return Image.fromarray(np.clip(values / 257, 0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture.convert("L" if picture.mode in {"1", "L"} else "RGB")


def _colours(picture: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Give the colours (height, width, 3), on white, and, if parts are transparent, where it is opaque."""
    if picture.mode != "RGBA":
        return np.asarray(picture.convert("RGB")), None
    opaque = np.asarray(picture.getchannel("A")) >= 128
    on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(on_white.convert("RGB")), None if opaque.all() else opaque


def _plain_background(colours: np.ndarray) -> np.ndarray | None:
    """Say where a picture differs from its first corner's colour; None if the background is not plain."""
    difference = np.abs(colours.astype(np.int16) - colours[0, 0]).max(axis=2)
    is_foreign = difference > 255 * PLAIN
    return None if _border(is_foreign).mean() > MOST_OF_BORDER else is_foreign


def _cut_out(colours: np.ndarray) -> np.ndarray:
    """Find the thing in the middle by GrabCut (Rother, Kolmogorov and Blake 2004), as (height, width) bool.

    It starts from an ellipse that nearly fills the picture, and takes the rim as background for certain.
    """
    import cv2

    height, width = colours.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    labels = np.where(rows**2 + columns**2 < ELLIPSE, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD
    smooth = cv2.GaussianBlur(colours, (0, 0), 1.5)  # else it follows every thread
    lab = cv2.cvtColor(smooth, cv2.COLOR_RGB2Lab)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(1)  # its colour models start by k-means
    cv2.grabCut(lab, labels, (0, 0, 0, 0), *models, 4, cv2.GC_INIT_WITH_MASK)
    return labels == cv2.GC_PR_FGD


def _clean(mask: np.ndarray) -> np.ndarray:
    """Keep the largest piece near the middle, with a second one of like size (shoes come in pairs), without specks."""
    import cv2

    height, width = mask.shape
    thin, thick = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (edge, edge)) for edge in (3, 5))
    smooth = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, thin)
    smooth = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, thick)
    count, pieces, boxes, centres = cv2.connectedComponentsWithStats(smooth)
    if count < 2:
        return np.zeros_like(mask)
    areas = boxes[1:, cv2.CC_STAT_AREA]
    distances = np.hypot(*((centres[1:] / (width, height)) - 0.5).T)
    best = (areas * np.exp(-3 * distances**2)).argmax()
    is_kept = (areas > 0.35 * areas[best]) & (distances < 0.35)
    is_kept[best] = True
    return np.concatenate([[False], is_kept])[pieces]


def _border(values: np.ndarray) -> np.ndarray:
    """Give the outermost pixels in one row."""
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """Give the rows and columns that hold all of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
