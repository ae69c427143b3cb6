"""Training images disturbed as photos would show them: pure functions of images, labels, seed and epoch.

Fashion-MNIST's pictures are of pressed garments, upright, evenly lit, one at a time. On a photo a garment lies or hangs
askew, is nearer at one end, is lit otherwise and has folds; shoes come in pairs and point anywhere; and some things are
no garment of these classes at all. The sizes below are those that did best on development photos (docs/log.md).
"""

import numpy as np

from fmnist.training import augment

SIZE = 28
DISTURBED_SHARE = 0.6
"""Of the whole garments. The rest stay as they are: studio pictures are still to be known."""
FRAGMENT_SHARE = 0.2
"""Of the garments that can be cut. More of them cost accuracy on whole ones."""
DISTURBED_FRAGMENT_SHARE = 0.7
"""More than of whole garments, so that no network tells fragments by their being cleaner."""

SHOES = ("Sandal", "Sneaker", "Ankle boot")
"""Classes of Fashion-MNIST that come in pairs and point anywhere. A data set without these names has none."""
TROUSERS = ("Trouser",)
"""Whose upper part is a pair of shorts."""
TOPS = ("T-shirt/top", "Pullover", "Coat", "Shirt")
"""Whose lower part is a skirt."""
DRESSES = ("Dress",)
"""As tops, with the waist further down and no sleeves beside it."""

PAIRED_SHARE = 0.6
TURNED_SHARE = 0.6
"""Of the shoes, those that point anywhere."""
TILT = np.deg2rad(7)
"""Standard deviation of the turn of everything else: a photo is seldom held straight, and seldom far from it."""
SHEAR = 0.06
"""Standard deviation."""
LOG_ASPECT = (-0.25, 0.5)
"""Width over height, as a factor's logarithm. Photos show garments wider than the catalogue: arms lie spread."""
BEND = (-0.105, 0.35)
"""How far the sides lie below the middle, as a share of half the image, half an image out: sleeves mostly hang."""
TAPER = 0.12
"""How much wider or narrower one end may be, half an image from the middle: the camera stands at one of them."""

BRIGHTNESS = (90, 240)
"""Mean of the garment."""
CONTRAST = (0.4, 1.2)
"""Against the image's own: a photo's conversion smooths much away."""
INVERTED_SHARE = 0.2
"""Whose seams and prints come out bright instead of dark, or the other way round."""
FOLDS = 11.2
"""Grey levels, mean of an exponential distribution: few garments are badly creased, many a little."""
FOLDS_ACROSS = 7
"""Points across the image between which a fold rises and falls: some four pixels from one to the next."""
NOISE = 4.8
"""As `FOLDS`, of single pixels: cloth's structure, and the camera."""
SHARPENING = (-0.8, 0.8)
"""Times the difference from a blurred image: lenses blur, phones sharpen."""
FRAGMENT_SHARPENING = (0.0, 2.5)
"""A small fragment is blurred by its enlargement, which must not be what tells it from a garment."""

FAINT = 8
"""Up to this grey level a pixel is counted as ground, where a garment is fitted, shaded or put before another."""
LEAST_INK = 20
"""Pixels; a fragment with fewer is none."""
BLOCK = 1_000
"""Images at a time: they stay in the processor's cache, and OpenCV takes no more than 32,767 rows."""

ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32) - np.float32((SIZE - 1) / 2)
"""(28, 28) each: where a pixel lies, from the middle of the image."""


def disturb(
    images: np.ndarray, one_hot_labels: np.ndarray, class_names: tuple[str, ...], seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Make a part of an epoch's images look as photos do, and teach what is no garment of these classes.

    Which garments are shoes, and which can be cut into what, follows from the names of the classes: images of a data
    set without Fashion-MNIST's names are turned a little, stretched and shaded, neither paired nor cut.

    Args:
        images: (n, 28, 28) uint8, in the order of the epoch, on which chance depends.
        one_hot_labels: (n, classes) float32.
        class_names: of the data set.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        New arrays of the same shapes and types. A fragment's row of labels holds 1 / classes everywhere: "none of
        these"; every other row is as it was.
    """
    generator = augment.stream("photolike", seed, epoch)
    images, one_hot_labels = images.copy(), one_hot_labels.copy()
    for start in range(0, len(images), BLOCK):
        block = slice(start, start + BLOCK)
        _disturb_block(images[block], one_hot_labels[block], class_names, generator)
    return images, one_hot_labels


def _disturb_block(
    images: np.ndarray, one_hot_labels: np.ndarray, class_names: tuple[str, ...], generator: np.random.Generator
) -> None:
    """Disturb some images, in their place."""
    labels = one_hot_labels.argmax(axis=1)
    is_shoe, is_trousers, is_top, is_dress = (
        np.array([name in names for name in class_names])[labels] for names in (SHOES, TROUSERS, TOPS, DRESSES)
    )
    can_be_cut = is_trousers | is_top | is_dress
    cut = np.flatnonzero(can_be_cut & (generator.random(len(images)) < FRAGMENT_SHARE))
    fragments = _fragments(images[cut].astype(np.float32), is_trousers[cut], is_dress[cut], generator)
    is_enough = _ink(fragments).sum(axis=(1, 2)) >= LEAST_INK
    cut, fragments = cut[is_enough], fragments[is_enough]
    images[cut] = _pixels(_sharpened(_reshaped(fragments), FRAGMENT_SHARPENING, generator))
    one_hot_labels[cut] = 1 / one_hot_labels.shape[1]

    share = np.full(len(images), DISTURBED_SHARE)
    share[cut] = DISTURBED_FRAGMENT_SHARE
    disturbed = np.flatnonzero(generator.random(len(images)) < share)
    is_shoe = is_shoe[disturbed]
    garments = images[disturbed].astype(np.float32)
    is_paired = is_shoe & (generator.random(len(garments)) < PAIRED_SHARE)
    garments[is_paired] = _pairs(garments[is_paired], generator)
    garments = _reshaped(garments, **_shapes(is_shoe, generator))
    images[disturbed] = _pixels(_sharpened(_shaded(garments, generator), SHARPENING, generator))


def _fragments(
    images: np.ndarray, is_trousers: np.ndarray, is_dress: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Cut out what is no whole garment: trousers' upper part, the lower part of the others, or a round piece.

    They stand for shorts, skirts and hats, which no class of Fashion-MNIST has.

    Args:
        images: (n, 28, 28) float32.
        is_trousers: (n,) bool.
        is_dress: (n,) bool.
        generator: of chance.

    Returns:
        (n, 28, 28) float32, each piece where it was.
    """
    num_images = len(images)
    top, left, height, width = _boxes(images)

    def drawn(least: float, most: float) -> np.ndarray:
        return _column(generator.uniform(least, most, num_images))

    row, column = np.arange(SIZE)[:, np.newaxis], np.arange(SIZE)
    is_upper = row < top + height * drawn(0.32, 0.55)

    waist = np.where(_column(is_dress), drawn(0.5, 0.75), drawn(0.38, 0.65))
    sleeve = width * drawn(0, 0.22) * ~_column(is_dress)
    is_lower = (row >= top + height * waist) & (column >= left + sleeve) & (column < left + width - sleeve)

    # A superellipse without a part of its lower half: something between a cap, a hat and a patch.
    x = (column - left - width * drawn(0.35, 0.65)) / (width * drawn(0.22, 0.42))
    y = (row - top - height * drawn(0.3, 0.6)) / (height * drawn(0.18, 0.35))
    power = drawn(1.5, 4)
    is_round_piece = (np.abs(x) ** power + np.abs(y) ** power < 1) & (y <= drawn(0.1, 1))

    is_round = ~_column(is_trousers) & (drawn(0, 1) < 1 / 3)
    is_kept = np.where(is_round, is_round_piece, np.where(_column(is_trousers), is_upper, is_lower))
    # A round piece has no gaps where there was ground, between sleeve and body.
    images = np.where(is_round & (images < FAINT), _column(_means(images, _ink(images))), images)
    return np.where(is_kept, images, 0).astype(np.float32)


def _pairs(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Put a second shoe before the first, further down and to one side, sometimes mirrored.

    Args:
        images: (n, 28, 28) float32.
        generator: of chance.

    Returns:
        (n, 28, 28) float32, both made small enough to fit.
    """
    _, _, height, _ = _boxes(images)
    apart_y = height * _column(generator.uniform(0.4, 1.1, len(images)))
    apart_x = _column(generator.uniform(-8, 8, len(images)))
    shrinking = np.maximum(height + apart_y + 2, SIZE + np.abs(apart_x)) / SIZE
    x, y = shrinking * COLUMNS, shrinking * ROWS
    is_mirrored = _column(generator.random(len(images)) < 0.3)
    behind = _sampled(images, x + apart_x / 2, y + apart_y / 2)
    before = _sampled(np.where(is_mirrored, images[:, :, ::-1], images), x - apart_x / 2, y - apart_y / 2)
    return np.where(before > FAINT, before, behind)


def _shapes(is_shoe: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the arguments of `_reshaped`: how each garment lies before the camera."""
    num_images = len(is_shoe)
    angle = generator.normal(0, TILT, num_images)
    is_turned = is_shoe & (generator.random(num_images) < TURNED_SHARE)
    angle[is_turned] = generator.uniform(-np.pi, np.pi, is_turned.sum())
    return {
        "angle": angle,
        "log_aspect": generator.uniform(*LOG_ASPECT, num_images),
        "shear": generator.normal(0, SHEAR, num_images),
        "bend": generator.uniform(*BEND, num_images),
        "taper": generator.uniform(-TAPER, TAPER, num_images),
    }


def _reshaped(images: np.ndarray, **shape: np.ndarray) -> np.ndarray:
    """Bend, taper, stretch, shear and turn garments, and fit them to the image again, as the data set's are.

    Args:
        images: (n, 28, 28) float32.
        shape: `angle` in radians, `log_aspect`, `shear`, `bend` and `taper`, (n,) each, 0 where left out.

    Returns:
        (n, 28, 28) float32, in the middle, the longer edge of what is not faint 28 pixels.
    """
    angle, log_aspect, shear, bend, taper = (
        _column(shape.get(name, np.zeros(len(images)))).astype(np.float32)
        for name in ("angle", "log_aspect", "shear", "bend", "taper")
    )
    half = SIZE / 2
    cosine, sine, stretch = np.cos(angle), np.sin(angle), np.exp(log_aspect / 2)
    # Turned after sheared after stretched, as a matrix of determinant 1.
    a, b = cosine * stretch, (cosine * shear - sine) / stretch
    c, d = sine * stretch, (sine * shear + cosine) / stretch

    # Where the garment's pixels come to lie, and between which edges.
    x = COLUMNS / (1 + taper * ROWS / half)
    y = ROWS - bend * x**2 / half
    ink = images > FAINT
    ink |= ~ink.any(axis=(1, 2), keepdims=True)  # an empty image counts as full, so that it has edges
    middles, extents = [], []
    for place, footprint in ((a * x + b * y, np.abs(a) + np.abs(b)), (c * x + d * y, np.abs(c) + np.abs(d))):
        least = np.where(ink, place, np.inf).min(axis=(1, 2), keepdims=True)
        most = np.where(ink, place, -np.inf).max(axis=(1, 2), keepdims=True)
        middles.append((least + most) / 2)
        extents.append(most - least + footprint)

    # And back: where each pixel of the result comes from.
    scale = np.maximum(*extents) / SIZE
    x, y = scale * COLUMNS + middles[0], scale * ROWS + middles[1]
    x, y = d * x - b * y, a * y - c * x
    y = y + bend * x**2 / half
    x = x * (1 + taper * y / half)
    return _sampled(images, x, y)


def _shaded(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Redraw brightness and contrast, and add folds and noise: other cloth in another light.

    Args:
        images: (n, 28, 28) float32.
        generator: of chance.

    Returns:
        (n, 28, 28) float32, 1 to 255 on the garment, its brightest pixel 255 as in the data set, and 0 around it.
    """
    num_images = len(images)
    is_garment = images > FAINT
    contrast = generator.uniform(*CONTRAST, num_images) * np.where(generator.random(num_images) < INVERTED_SHARE, -1, 1)
    shaded = _column(contrast) * (images - _column(_means(images, is_garment)))
    shaded += _column(generator.uniform(*BRIGHTNESS, num_images))

    knots = generator.standard_normal((num_images, FOLDS_ACROSS, FOLDS_ACROSS), np.float32)
    distances = np.arange(FOLDS_ACROSS) - np.linspace(0, FOLDS_ACROSS - 1, SIZE)[:, np.newaxis]
    between = np.maximum(0, 1 - np.abs(distances)).astype(np.float32)
    shaded += _column(generator.exponential(FOLDS, num_images)) * (between @ knots @ between.T)
    shaded += _column(generator.exponential(NOISE, num_images)) * generator.standard_normal(images.shape, np.float32)

    shaded = np.where(is_garment, np.clip(shaded, 1, 255), 0)
    return shaded * (255 / np.maximum(1, shaded.max(axis=(1, 2), keepdims=True)))


def _sharpened(images: np.ndarray, strengths: tuple[float, float], generator: np.random.Generator) -> np.ndarray:
    """Sharpen garments within their outline, by strengths between these; a negative one blurs."""
    blurred = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    blurred = blurred[:, :-2] / 4 + blurred[:, 1:-1] / 2 + blurred[:, 2:] / 4
    blurred = blurred[:, :, :-2] / 4 + blurred[:, :, 1:-1] / 2 + blurred[:, :, 2:] / 4
    strength = _column(generator.uniform(*strengths, len(images)))
    return np.where(images > FAINT / 2, np.clip(images + strength * (images - blurred), 1, 255), 0)


def _sampled(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Look images up between their pixels, black around.

    Args:
        images: (n, 28, 28) float32, n at most `BLOCK`.
        x: (n, 28, 28), for each pixel of the result the column in the image that it comes from, from the middle.
        y: the same of rows.

    Returns:
        (n, 28, 28) float32.
    """
    import cv2

    if len(images) == 0:
        return images
    # One tall image takes one call: all below one another, each in a black frame of a pixel.
    framed = SIZE + 2
    tall = np.pad(images, ((0, 0), (1, 1), (1, 1))).reshape(-1, framed)
    middle = (framed - 1) / 2
    first_row = framed * np.arange(len(images))[:, np.newaxis, np.newaxis]
    columns = np.clip(x + middle, 0, framed - 1)
    rows = np.clip(y + middle, 0, framed - 1) + first_row
    found = cv2.remap(
        tall.astype(np.float32),
        columns.reshape(-1, SIZE).astype(np.float32),
        rows.reshape(-1, SIZE).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    return found.reshape(images.shape)


def _boxes(images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Give the first row and column of what is not black, its height and its width, (n, 1, 1) each."""
    ink = _ink(images)
    rows, columns = np.any(ink, axis=2), np.any(ink, axis=1)
    first_row, first_column = (_column(line.argmax(axis=1)) for line in (rows, columns))
    past_row, past_column = (_column(SIZE - line[:, ::-1].argmax(axis=1)) for line in (rows, columns))
    return first_row, first_column, past_row - first_row, past_column - first_column


def _means(images: np.ndarray, is_counted: np.ndarray) -> np.ndarray:
    return (images * is_counted).sum(axis=(1, 2)) / np.maximum(1, is_counted.sum(axis=(1, 2)))


def _ink(images: np.ndarray) -> np.ndarray:
    return images > 0


def _column(values: np.ndarray) -> np.ndarray:
    """Make a value an image, (n,), fit for arithmetic with images, (n, 1, 1)."""
    return values[:, np.newaxis, np.newaxis]


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)
