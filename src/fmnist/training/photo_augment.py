"""Augmentation that makes Fashion-MNIST's images look like photos.

Fashion-MNIST shows single garments, pressed, upright and evenly lit. Photos differ: a garment is rotated, seen in
perspective, creased and lit from one side, shoes are shown in pairs and in any direction, and some objects belong to no
class. The values below did best on development photos (docs/log.md).

The order of the random draws is part of the result: another order gives other images for the same seed.
"""

import numpy as np

from fmnist.config import IMAGE_SIZE
from fmnist.training import augment
from fmnist.training.warp import BACKGROUND_MAX, Warp, X, Y, bounding_boxes, per_image, sample, warp_and_fit

AUGMENT_PROBABILITY = 0.6
"""Of whole garments. The others stay unchanged, so that the network still learns the data set's own images."""
FRAGMENT_PROBABILITY = 0.2
"""Of the garments that can be cut into fragments. More fragments reduce the accuracy on whole garments."""
NEGATIVE_PROBABILITY = 0.02
"""Of all images, if there is an output for "none of the classes": with bright and dark exchanged, they are none."""
NOISE_PROBABILITY = 0.005
"""Likewise: replaced by noise of single pixels, of any brightness and contrast."""
AUGMENT_FRAGMENT_PROBABILITY = 0.7
"""Higher than for whole garments, so that the network cannot recognize fragments by their lack of augmentation."""

SHOE_CLASSES = ("Sandal", "Sneaker", "Ankle boot")
"""Shown in pairs and in any direction. A data set without these class names has no shoes; likewise below."""
TROUSER_CLASSES = ("Trouser",)
"""The upper part looks like shorts."""
TOP_CLASSES = ("T-shirt/top", "Pullover", "Coat", "Shirt")
"""The lower part looks like a skirt."""
DRESS_CLASSES = ("Dress",)
"""Like tops, with a lower waist and without sleeves beside it."""

PAIR_PROBABILITY = 0.6
"""Of shoes."""
ANY_ANGLE_PROBABILITY = 0.6
"""Of shoes: rotation by any angle."""
ANGLE_STD = np.deg2rad(7)
"""Radians, of everything else: photos are rarely taken quite straight, and rarely far from it."""
SHEAR_STD = 0.06
LOG_ASPECT_RANGE = (-0.25, 0.5)
"""Mostly wider: on photos the arms are often spread."""
BEND_RANGE = (-0.105, 0.35)
"""Mostly upward at the sides."""
MAX_TAPER = 0.12
"""The camera is nearer to one end of the garment."""

BRIGHTNESS_RANGE = (90, 240)
"""Mean gray level of the garment."""
CONTRAST_RANGE = (0.4, 1.2)
"""Factor on the image's own contrast. It is mostly below 1 because the conversion of photos smooths."""
INVERT_PROBABILITY = 0.2
"""Inverts the contrast: light seams and prints become dark, and dark ones light."""
MEAN_FOLD_STRENGTH = 11.2
"""Gray levels, mean of an exponential distribution: most garments have slight folds, few have strong ones."""
FOLD_GRID_SIZE = 7
"""Rows and columns of random values from which the folds are interpolated, about four pixels apart."""
MEAN_NOISE_STD = 4.8
"""Gray levels, mean of an exponential distribution: noise of single pixels, as from the fabric and the camera."""
SHARPNESS_RANGE = (-0.8, 0.8)
"""Factor on the difference from the blurred image: lenses blur and phones sharpen."""
FRAGMENT_SHARPNESS_RANGE = (0.0, 2.5)
"""Fragments are blurred by enlargement; sharpening keeps the network from recognizing them by that."""

MIN_FRAGMENT_PIXELS = 20
"""A garment stays whole if its fragment would have fewer pixels."""
CHUNK_SIZE = 1_000
"""Images processed at once: few enough for the processor's cache and for `warp.sample`."""


def augment_as_photos(
    images: np.ndarray,
    one_hot_labels: np.ndarray,
    class_names: tuple[str, ...],
    seed: int,
    epoch: int,
    flip: bool = True,
    has_photos: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make some of an epoch's images look like photos, and replace some garments by fragments of no class.

    The class names decide which images are shoes and which garments can be cut. Images of a data set with other class
    names are warped and shaded, but neither paired nor cut.

    Args:
        images: (n, 28, 28) uint8. The result for an image depends on its position.
        one_hot_labels: (n, num_classes) float32, or one column more for "none of the classes".
        class_names: class names of the data set.
        seed: seed of the run.
        epoch: epoch number, from 0.
        flip: whether some of the shoes in pairs may be flipped.
        has_photos: (num_classes,) bool, the classes that have photos of their own in training. Their images stay as
            they are, because photos teach more than imitations. None imitates photos of every class.

    Returns:
        Images and labels, new arrays of the same shapes and dtypes. The label of a fragment is "none of the
        classes": its column, or 1 / num_classes for every class. With that column, so is the label of the few images
        that are negated or replaced by noise. The other labels are unchanged.
    """
    rng = augment.rng("photo_augmentation", seed, epoch)
    images, one_hot_labels = images.copy(), one_hot_labels.copy()
    is_imitated = np.ones(len(class_names), bool) if has_photos is None else ~has_photos
    for start in range(0, len(images), CHUNK_SIZE):
        chunk = slice(start, start + CHUNK_SIZE)
        _augment_chunk(images[chunk], one_hot_labels[chunk], class_names, rng, flip, is_imitated)
    return images, one_hot_labels


def _augment_chunk(
    images: np.ndarray,
    one_hot_labels: np.ndarray,
    class_names: tuple[str, ...],
    rng: np.random.Generator,
    flip: bool,
    is_imitated: np.ndarray,
) -> None:
    """Augment images and labels in place."""
    labels = one_hot_labels.argmax(axis=1)
    has_none_column = one_hot_labels.shape[1] > len(class_names)
    is_shoe, is_trousers, is_top, is_dress = (
        np.array([name in names for name in class_names])[labels]
        for names in (SHOE_CLASSES, TROUSER_CLASSES, TOP_CLASSES, DRESS_CLASSES)
    )
    can_be_cut = (is_trousers | is_top | is_dress) & is_imitated[labels]
    cut = np.flatnonzero(can_be_cut & (rng.random(len(images)) < FRAGMENT_PROBABILITY))
    fragments = _cut_fragments(images[cut].astype(np.float32), is_trousers[cut], is_dress[cut], rng)
    is_large_enough = (fragments > 0).sum(axis=(1, 2)) >= MIN_FRAGMENT_PIXELS
    cut, fragments = cut[is_large_enough], fragments[is_large_enough]
    images[cut] = _to_uint8(_sharpen(warp_and_fit(fragments, Warp()), FRAGMENT_SHARPNESS_RANGE, rng))
    one_hot_labels[cut] = 0 if has_none_column else 1 / len(class_names)
    one_hot_labels[cut, len(class_names) :] = 1

    probability = np.where(is_imitated[labels], AUGMENT_PROBABILITY, 0)
    probability[cut] = AUGMENT_FRAGMENT_PROBABILITY
    selected = np.flatnonzero(rng.random(len(images)) < probability)
    is_shoe = is_shoe[selected]
    augmented = images[selected].astype(np.float32)
    is_paired = is_shoe & (rng.random(len(augmented)) < PAIR_PROBABILITY)
    augmented[is_paired] = _make_pairs(augmented[is_paired], rng, flip)
    augmented = warp_and_fit(augmented, _random_warp(is_shoe, rng))
    images[selected] = _to_uint8(_sharpen(_shade(augmented, rng), SHARPNESS_RANGE, rng))
    if has_none_column:
        negatives = np.flatnonzero(rng.random(len(images)) < NEGATIVE_PROBABILITY)
        images[negatives] = 255 - images[negatives]
        noise = np.flatnonzero(rng.random(len(images)) < NOISE_PROBABILITY)
        images[noise] = _draw_noise(len(noise), rng)
        one_hot_labels[[*negatives, *noise]] = np.eye(one_hot_labels.shape[1])[-1]


def _draw_noise(num_images: int, rng: np.random.Generator) -> np.ndarray:
    """Return images of independent pixels between two random gray levels, (num_images, 28, 28) uint8."""
    low, high = (per_image(levels) for levels in np.sort(rng.uniform(0, 255, (2, num_images)), axis=0))
    return (low + (high - low) * rng.random((num_images, IMAGE_SIZE, IMAGE_SIZE))).astype(np.uint8)


def _cut_fragments(
    images: np.ndarray, is_trousers: np.ndarray, is_dress: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Cut a fragment out of each garment: the upper part of trousers, the lower part or a round piece of the others.

    The fragments stand for shorts, skirts and hats, for which Fashion-MNIST has no class.

    Args:
        images: (n, 28, 28) float32.
        is_trousers: (n,) bool.
        is_dress: (n,) bool.
        rng: random generator.

    Returns:
        (n, 28, 28) float32, each fragment at its place in the garment and 0 elsewhere.
    """
    num_images = len(images)
    top, left, height, width = bounding_boxes(images)
    trousers, dress = per_image(is_trousers), per_image(is_dress)

    def uniform(low: float, high: float) -> np.ndarray:
        return per_image(rng.uniform(low, high, num_images))

    row, column = np.arange(IMAGE_SIZE)[:, np.newaxis], np.arange(IMAGE_SIZE)
    is_upper_part = row < top + height * uniform(0.32, 0.55)

    waist = np.where(dress, uniform(0.5, 0.75), uniform(0.38, 0.65))
    sleeve = width * uniform(0, 0.22) * ~dress
    is_lower_part = (row >= top + height * waist) & (column >= left + sleeve) & (column < left + width - sleeve)

    # The shape of a hat or cap: a superellipse with some of its lower half cut off.
    x = (column - left - width * uniform(0.35, 0.65)) / (width * uniform(0.22, 0.42))
    y = (row - top - height * uniform(0.3, 0.6)) / (height * uniform(0.18, 0.35))
    exponent = uniform(1.5, 4)
    is_in_round_piece = (np.abs(x) ** exponent + np.abs(y) ** exponent < 1) & (y <= uniform(0.1, 1))

    is_round = ~trousers & (uniform(0, 1) < 1 / 3)
    is_kept = np.where(is_round, is_in_round_piece, np.where(trousers, is_upper_part, is_lower_part))
    # Background between sleeve and body would leave gaps in a round piece.
    images = np.where(is_round & (images < BACKGROUND_MAX), per_image(_means(images, images > 0)), images)
    return np.where(is_kept, images, 0).astype(np.float32)


def _make_pairs(images: np.ndarray, rng: np.random.Generator, flip: bool) -> np.ndarray:
    """Place a copy of each shoe in front of it, lower and to the left or right, sometimes flipped.

    Args:
        images: (n, 28, 28) float32.
        rng: random generator.
        flip: whether copies may be flipped.

    Returns:
        (n, 28, 28) float32, both shoes scaled down to fit.
    """
    _, _, height, _ = bounding_boxes(images)
    offset_y = height * per_image(rng.uniform(0.4, 1.1, len(images)))
    offset_x = per_image(rng.uniform(-8, 8, len(images)))
    scale = np.maximum(height + offset_y + 2, IMAGE_SIZE + np.abs(offset_x)) / IMAGE_SIZE
    x, y = scale * X, scale * Y
    is_flipped = per_image(rng.random(len(images)) < 0.3) & flip
    back = sample(images, x + offset_x / 2, y + offset_y / 2)
    front = sample(np.where(is_flipped, images[:, :, ::-1], images), x - offset_x / 2, y - offset_y / 2)
    return np.where(front > BACKGROUND_MAX, front, back)


def _random_warp(is_shoe: np.ndarray, rng: np.random.Generator) -> Warp:
    num_images = len(is_shoe)
    angle = rng.normal(0, ANGLE_STD, num_images)
    is_any_angle = is_shoe & (rng.random(num_images) < ANY_ANGLE_PROBABILITY)
    angle[is_any_angle] = rng.uniform(-np.pi, np.pi, is_any_angle.sum())
    return Warp(
        angle=angle,
        log_aspect=rng.uniform(*LOG_ASPECT_RANGE, num_images),
        shear=rng.normal(0, SHEAR_STD, num_images),
        bend=rng.uniform(*BEND_RANGE, num_images),
        taper=rng.uniform(-MAX_TAPER, MAX_TAPER, num_images),
    )


def _shade(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a new brightness and contrast for each garment, and add folds and noise.

    Args:
        images: (n, 28, 28) float32.
        rng: random generator.

    Returns:
        (n, 28, 28) float32: 1 to 255 on the garment, scaled to a maximum of 255 as in Fashion-MNIST, and 0 elsewhere.
    """
    num_images = len(images)
    is_foreground = images > BACKGROUND_MAX
    contrast = rng.uniform(*CONTRAST_RANGE, num_images) * np.where(rng.random(num_images) < INVERT_PROBABILITY, -1, 1)
    shaded = per_image(contrast) * (images - per_image(_means(images, is_foreground)))
    shaded += per_image(rng.uniform(*BRIGHTNESS_RANGE, num_images))

    grid = rng.standard_normal((num_images, FOLD_GRID_SIZE, FOLD_GRID_SIZE), np.float32)
    distances = np.arange(FOLD_GRID_SIZE) - np.linspace(0, FOLD_GRID_SIZE - 1, IMAGE_SIZE)[:, np.newaxis]
    interpolation = np.maximum(0, 1 - np.abs(distances)).astype(np.float32)  # linear, (28, grid size)
    folds = interpolation @ grid @ interpolation.T
    shaded += per_image(rng.exponential(MEAN_FOLD_STRENGTH, num_images)) * folds
    shaded += per_image(rng.exponential(MEAN_NOISE_STD, num_images)) * rng.standard_normal(images.shape, np.float32)

    shaded = np.where(is_foreground, np.clip(shaded, 1, 255), 0)
    return shaded * (255 / np.maximum(1, shaded.max(axis=(1, 2), keepdims=True)))


def _sharpen(images: np.ndarray, strength_range: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Sharpen each garment within its outline by a random strength; a negative strength blurs."""
    blurred = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    blurred = blurred[:, :-2] / 4 + blurred[:, 1:-1] / 2 + blurred[:, 2:] / 4
    blurred = blurred[:, :, :-2] / 4 + blurred[:, :, 1:-1] / 2 + blurred[:, :, 2:] / 4
    strength = per_image(rng.uniform(*strength_range, len(images)))
    sharpened = np.clip(images + strength * (images - blurred), 1, 255)
    return np.where(images > BACKGROUND_MAX / 2, sharpened, 0)


def _means(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of each image over its mask, (n,), or 0 where the mask is empty."""
    return (images * mask).sum(axis=(1, 2)) / np.maximum(1, mask.sum(axis=(1, 2)))


def _to_uint8(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)
