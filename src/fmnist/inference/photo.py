"""Convert a photo of a garment on any background to the 28x28 image that a network expects.

The steps are those of the data set's authors (arXiv 1708.07747, section 2): trim to the garment, resize the longest
edge to 28, sharpen, center on a square, negate, stretch to the full range. Their photos have a white background. Here
the garment is segmented first, and the background becomes black.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from fmnist.config import IMAGE_SIZE
from fmnist.errors import FmnistError
from fmnist.inference.dataset_image import LIGHT, border, find_ground, recover
from fmnist.inference.picture import on_white

Kind = Literal["image", "product shot", "photo"]
"""What a picture is: an image in the format of the data set, a garment on a plain bright ground, or any other photo."""

WORKING_EDGE = 160
"""Longest edge in pixels during segmentation: GrabCut takes 40 ms at this size, and the result has only 28."""
PREVIEW_EDGE = 320
"""Longest edge in pixels of the original among the steps."""
BACKGROUND_TOLERANCE = 0.05
"""Largest difference from the corner's color that is still background, relative to the full range; from the paper."""
STUDIO_BRIGHTNESS = 200
"""A plain background brighter than this is a studio's, for which the paper's negation and sharpening are made."""
ELLIPSE_RADIUS_SQUARED = 0.8
"""Of the initial garment region, in half edges: larger than most garments, smaller than the picture."""
SMOOTHING_SIGMA = 0.7
"""Standard deviation of the smoothing, in pixels of the result; docs/log.md compares other values."""
MIN_GARMENT_SHARE = 0.01
"""Of the picture; a smaller region is a button or a stain."""
MAX_GARMENT_SHARE = 0.98
"""Of the picture; a larger region leaves no background."""
MIN_FILLING_EDGE = 25
"""Longest edge in pixels of a garment that fills an image of 28x28 already; a smaller one is enlarged."""
MAX_BORDER_SHARE = 0.15
"""Of the picture's border; a garment that covers more is cut off."""

NOTHING_FOUND = "nothing found in the picture"
CUT_OFF = "cut off at the {} edge: step back"
TOO_DARK = "too dark: more light would help"
DARK = 40  # mean gray level
FEW_PIXELS = "too few details; a sharper or larger photo would help"


@dataclass(frozen=True)
class Conversion:
    """A converted photo."""

    pixels: np.ndarray
    """(28, 28) uint8, bright garment on black."""
    steps: dict[str, Image.Image]
    """A picture of each step: `original`, `mask`, `crop`, `28x28`, in this order. No edge exceeds `PREVIEW_EDGE`."""
    kind: Kind
    """What the picture was taken for."""
    problem: str | None
    """Why the pixels may not show a whole garment, in words; None if no problem was detected."""


def convert(
    picture: Image.Image, kind: Literal["image", "photo"] | None = None, *, is_garment: bool = True
) -> Conversion:
    """Convert a picture to an image in the format of the data set.

    An image of the data set, 28x28 gray pixels on black in any encoding, also enlarged, is used unchanged. The same on
    white is negated. In any other picture the garment is segmented, and rendered like an image of the data set.

    Args:
        picture: as `picture.read` returns it.
        kind: `image` or `photo` to convert the picture as such, whatever it looks like; None decides by its pixels.
        is_garment: whether the classes are those of Fashion-MNIST. Images of other data sets may have any ground, so
            that 28x28 gray pixels are always used unchanged.

    Returns:
        The pixels, the steps that led to them, what the picture was taken for, and the problem if there is one.

    Raises:
        FmnistError: if `kind` is `image` and the picture is not square.
    """
    if kind == "image":
        return _unchanged(picture, _shrink(picture))
    pixels = recover(picture) if kind is None else None
    if pixels is not None:
        ground = find_ground(pixels)
        if ground == "black" or not is_garment:
            return _unchanged(picture, pixels)
        if ground == "white":
            return _negate(picture, pixels)
    elif kind is None and (picture.size, picture.mode) == ((IMAGE_SIZE, IMAGE_SIZE), "RGB"):
        gray = np.asarray(picture.convert("L"))
        if find_ground(gray) == "white":
            return _negate(picture, gray)
    return _segment(picture)


def _unchanged(picture: Image.Image, pixels: np.ndarray) -> Conversion:
    """Return pixels that need no conversion; `picture` is the first of the steps."""
    image = Image.fromarray(pixels)
    steps = {"original": _preview(picture), "mask": image, "crop": image, "28x28": image}
    return Conversion(pixels, steps, "image", None)


def _shrink(picture: Image.Image) -> np.ndarray:
    """Reduce a square picture to (28, 28) uint8 gray pixels, without looking for a garment."""
    if picture.width != picture.height:
        raise FmnistError(
            f"the picture has {picture.width}x{picture.height} pixels, and an image of the data set is square; "
            "cut it, or let it be converted as a photo"
        )
    pixels = recover(picture)
    if pixels is not None:
        return pixels
    on_black = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture.convert("RGBA"))
    return np.asarray(on_black.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))


def _negate(picture: Image.Image, pixels: np.ndarray) -> Conversion:
    """Negate a garment on white that has been reduced to (28, 28) uint8 pixels, which leave nothing to segment.

    `picture` is the first of the steps.
    """
    outermost = border(pixels)
    ground = np.median(outermost[outermost >= LIGHT])
    negative = np.clip(ground - pixels, 0, 255)
    mask = negative > 255 * BACKGROUND_TOLERANCE
    problem = FEW_PIXELS if mask.mean() >= MIN_GARMENT_SHARE else NOTHING_FOUND
    if problem == NOTHING_FOUND:
        mask = np.ones_like(mask)
    rows, columns = _bounding_box(mask)
    if max(rows.stop - rows.start, columns.stop - columns.start) >= MIN_FILLING_EDGE:
        rows = columns = slice(0, IMAGE_SIZE)
    garment = Image.fromarray(np.where(mask, negative, 0)[rows, columns].astype(np.float32))
    size = _final_size(garment.width, garment.height)
    negated = _center(np.asarray(garment.resize(size, Image.Resampling.BICUBIC)))
    steps = _steps(picture, mask, pixels[rows, columns], negated)
    return Conversion(negated, steps, "product shot", problem)


def _segment(picture: Image.Image) -> Conversion:
    """Segment the garment in a picture and render it."""
    small = picture.copy()
    small.thumbnail((WORKING_EDGE, WORKING_EDGE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    small = small.resize((max(IMAGE_SIZE, small.width), max(IMAGE_SIZE, small.height)))
    colors, opaque = _split_alpha(small)
    easy_mask = opaque if opaque is not None else _mask_on_plain_background(colors)
    is_product_shot = easy_mask is not None and colors[0, 0].mean() > STUDIO_BRIGHTNESS
    mask = _clean(_grabcut(colors) if easy_mask is None else easy_mask)
    problem = None
    if not MIN_GARMENT_SHARE <= mask.mean() <= MAX_GARMENT_SHARE:
        problem, mask = NOTHING_FOUND, np.ones_like(mask)
    elif max(picture.size) < 2 * IMAGE_SIZE:
        problem = FEW_PIXELS
    elif border(mask[1:-1, 1:-1]).mean() > MAX_BORDER_SHARE:  # GrabCut never marks the outermost pixels
        problem = CUT_OFF.format(_edge_with_most(mask[1:-1, 1:-1]))
    rows, columns = _bounding_box(mask)
    pixels = render(colors[rows, columns], mask[rows, columns], is_product_shot=is_product_shot)
    crop = np.where(mask[..., None], colors, 255)[rows, columns]
    steps = _steps(picture, mask, crop, pixels)
    return Conversion(pixels, steps, "product shot" if is_product_shot else "photo", problem)


def _edge_with_most(mask: np.ndarray) -> str:
    """Name the edge of a mask that the garment covers most."""
    shares = {"upper": mask[0].mean(), "lower": mask[-1].mean(), "left": mask[:, 0].mean(), "right": mask[:, -1].mean()}
    return max(shares, key=shares.__getitem__)


def light_problem(picture: Image.Image) -> str | None:
    """Return `TOO_DARK` for a picture that is. None for any other."""
    return TOO_DARK if np.asarray(picture.convert("L")).mean() < DARK else None


def _steps(picture: Image.Image, mask: np.ndarray, crop: np.ndarray, pixels: np.ndarray) -> dict[str, Image.Image]:
    """Return the steps of a conversion as pictures."""
    return {
        "original": _preview(picture),
        "mask": Image.fromarray(mask.astype(np.uint8) * 255),
        "crop": Image.fromarray(crop),
        "28x28": Image.fromarray(pixels),
    }


def _preview(picture: Image.Image) -> Image.Image:
    """Return a picture as the first of the steps."""
    preview = picture.copy() if picture.mode == "L" else on_white(picture)
    preview.thumbnail((PREVIEW_EDGE, PREVIEW_EDGE))
    return preview


def render(colors: np.ndarray, mask: np.ndarray, is_product_shot: bool) -> np.ndarray:
    """Render a segmented garment like an image of the data set.

    A product shot is sharpened, as in the paper. Other photos have folds, shadows and prints that product shots lack.
    They are smoothed within the outline, which stays sharp.

    Args:
        colors: (height, width, 3) uint8, trimmed to the garment.
        mask: (height, width) bool, True on the garment.
        is_product_shot: whether the background is plain and bright.

    Returns:
        (28, 28) uint8: longest edge 28, centered (an odd margin has its extra pixel above or left), negated, stretched
        to 255.
    """
    import cv2

    height, width = mask.shape
    size = _final_size(width, height)
    coverage = mask.astype(np.float32)
    negative = np.where(mask, 255 - cv2.cvtColor(colors, cv2.COLOR_RGB2GRAY), 0).astype(np.float32)
    if not is_product_shot:
        sigma = SMOOTHING_SIGMA * max(height, width) / IMAGE_SIZE
        # Pixels at the edge mix garment and background. They only count where the garment is too thin to have others.
        inner = cv2.erode(coverage, np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=0) + 0.01 * coverage
        weights = np.maximum(cv2.GaussianBlur(inner, (0, 0), sigma), 1e-4)
        negative = (cv2.GaussianBlur(negative * inner, (0, 0), sigma) / weights).astype(np.float32)
    small = cv2.resize(negative, size, interpolation=cv2.INTER_AREA)
    if is_product_shot:
        small = 2 * small - cv2.GaussianBlur(small, (3, 3), 1.0, borderType=cv2.BORDER_REPLICATE)
    is_garment = cv2.resize(coverage, size, interpolation=cv2.INTER_AREA) > (0.1 if is_product_shot else 0.5)
    return _center(np.where(is_garment, np.clip(small, 1, 255), 0))


def _final_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of a garment whose longest edge becomes 28."""
    scale = IMAGE_SIZE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _center(values: np.ndarray) -> np.ndarray:
    """Center a garment on a black square, (28, 28) uint8, and stretch it to 255."""
    height, width = values.shape
    top, left = (IMAGE_SIZE - height + 1) // 2, (IMAGE_SIZE - width + 1) // 2
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    image[top : top + height, left : left + width] = values
    return np.round(np.clip(image * (255 / max(image.max(), 1)), 0, 255)).astype(np.uint8)


def _split_alpha(picture: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the colors on white, (height, width, 3), and the mask of opaque pixels, or None if all are opaque."""
    if picture.mode != "RGBA":
        return np.asarray(on_white(picture)), None
    opaque = np.asarray(picture.getchannel("A")) >= 128
    return np.asarray(on_white(picture)), None if opaque.all() else opaque


def _mask_on_plain_background(colors: np.ndarray) -> np.ndarray | None:
    """Return the mask of pixels that differ from the first corner's color, or None if the background is not plain."""
    difference = np.abs(colors.astype(np.int16) - colors[0, 0]).max(axis=2)
    mask = difference > 255 * BACKGROUND_TOLERANCE
    return None if border(mask).mean() > MAX_BORDER_SHARE else mask


def _grabcut(colors: np.ndarray) -> np.ndarray:
    """Segment the object in the middle by GrabCut (Rother, Kolmogorov and Blake 2004): a (height, width) bool mask.

    The initial foreground is an ellipse that nearly fills the picture; the outermost pixels are fixed as background.
    """
    import cv2

    height, width = colors.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    is_inside = rows**2 + columns**2 < ELLIPSE_RADIUS_SQUARED
    labels = np.where(is_inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD
    smooth = cv2.GaussianBlur(colors, (0, 0), 1.5)  # otherwise the outline follows the texture
    lab = cv2.cvtColor(smooth, cv2.COLOR_RGB2Lab)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(1)  # GrabCut initializes its color models by k-means
    cv2.grabCut(lab, labels, (0, 0, 0, 0), *models, 4, cv2.GC_INIT_WITH_MASK)
    return labels == cv2.GC_PR_FGD


def _clean(mask: np.ndarray) -> np.ndarray:
    """Smooth a mask and keep its largest central component, and others of similar size (shoes come in pairs)."""
    import cv2

    height, width = mask.shape
    small, large = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (edge, edge)) for edge in (3, 5))
    smooth = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, small)
    smooth = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, large)
    num_labels, labels, stats, centroids = cv2.connectedComponentsWithStats(smooth)
    if num_labels < 2:
        return np.zeros_like(mask)
    areas = stats[1:, cv2.CC_STAT_AREA]
    distances = np.hypot(*((centroids[1:] / (width, height)) - 0.5).T)
    best = (areas * np.exp(-3 * distances**2)).argmax()
    is_kept = (areas > 0.35 * areas[best]) & (distances < 0.35)
    is_kept[best] = True
    return np.concatenate([[False], is_kept])[labels]


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of the bounding box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
