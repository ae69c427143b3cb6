"""The configuration of a training run: one immutable document, and presets as named values of it."""

import math
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from msgspec import Meta
from msgspec.structs import fields, force_setattr, replace

from fmnist.documents import Document
from fmnist.errors import FmnistError

IMAGE_SIZE = 28
"""Height and width of an image, in pixels."""
MAX_CLASSES = 100
"""EMNIST has 62."""
MAX_EPOCHS = 5_000
MAX_VIEWS = 64
MAX_SHIFT = 14
"""Pixels: half an image."""
BATCH_SIZE, GPU_BATCH_SIZE = 512, 1_000
"""Images per step of a preset. 1,000 divides the images of an epoch, so no second program is compiled for the rest."""

Pixels = Annotated[int, Meta(ge=-MAX_SHIFT, le=MAX_SHIFT)]
View = tuple[bool, Pixels, Pixels]
"""One view of an image for test-time augmentation: whether it is mirrored, then its shift down and to the right."""
Views = Annotated[tuple[View, ...], Meta(min_length=1, max_length=MAX_VIEWS)]
Fraction = Annotated[float, Meta(ge=0, le=1)]

IDENTITY_VIEW: View = (False, 0, 0)
TTA_VIEWS: tuple[View, ...] = tuple(
    (is_mirrored, *shift) for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)) for is_mirrored in (False, True)
)
"""The image itself, its four shifts by one pixel, and all five mirrored."""


class Config(Document, frozen=True, kw_only=True):
    """All settings of a run. Together with the data they determine the weights.

    The bounds keep a configuration from another person from taking all memory or time.

    Attributes:
        preset: Name of the preset that this configuration started from.
        network: Architecture, a key of `fmnist.models.networks.NETWORKS`. `custom` is a function of the user.
        epochs: How many. With `hard_example_fraction` below 1, an epoch trains on that fraction of the images.
        batch_size: Images per step. `auto` is 1,000 for Fashion-MNIST on a GPU, else 512, see `resolve`.
        optimizer: `muon` is fmnist's own, `custom` an object of the user, and the others are those of Keras.
        learning_rate: Of the optimizer; with a schedule the initial value.
        schedule: How the learning rate decays, to zero at the end of the run. `auto` is `linear` for `muon` and
            `constant` for all others; `custom` is that of a user's optimizer.
        momentum: Momentum of `muon`, `sgd` and `rmsprop`.
        weight_decay: Of the optimizer, as Keras defines it. None is the optimizer's default.
        adam_lr_ratio: With `muon`: the learning rate of everything but convolution kernels, divided by `learning_rate`.
        hard_example_fraction: Fraction of the training images in an epoch: those with the highest loss when last
            trained on.
        label_smoothing: Probability moved from the true class to all classes evenly.
        flip: Alternating flip: mirror at random in the first epoch, then mirror every image from one epoch to the next.
            Without it, the mirrored views are dropped too. `auto` flips Fashion-MNIST only, see `resolve`.
        shift: Largest random shift in each direction, in pixels. Without it, the shifted views are dropped too.
        cutmix: Fraction of the images that get a rectangle of another image, with mixed labels (CutMix).
        photo_augmentation: Transform some images to look like photos, and train on fragments as "none of the classes".
            Images of classes that have photos of their own stay as they are.
        photo_fraction: Fraction of the images of an epoch that are photos. Above 0, the network has an output for "none
            of the classes". Images of other data sets than Fashion-MNIST are not mixed with photos, unless `photos`
            names some.
        photos: Path of the photos. None is the repository's file.
        class_weights: Weight the loss of each class by the inverse of its number of images, as scikit-learn's
            `balanced` does.
        tta_views: Views that the exported graph averages over (test-time augmentation). The first is the single view.
        precision: `auto` is bfloat16 for a preset's network on a GPU, and by TensorFlow on a CPU that computes in it
            natively; else float32.
        seed: Seed of the validation split, initial weights, order, augmentation and dropout.
        full: Train on all training images, without a validation split.
        data: Path of another data set. None is Fashion-MNIST, or data in memory.
    """

    preset: Annotated[str, Meta(max_length=4_096)]
    network: Literal["textbook", "fast", "tiny", "photo", "best", "custom"]
    epochs: Annotated[int, Meta(ge=1, le=MAX_EPOCHS)]
    batch_size: Annotated[int, Meta(ge=1, le=100_000)] | Literal["auto"]
    optimizer: Literal[
        "muon", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "nadam",
        "rmsprop", "sgd", "custom",
    ]  # fmt: skip
    learning_rate: Annotated[float, Meta(ge=0, le=1_000)]
    schedule: Literal["auto", "constant", "linear", "cosine", "custom"] = "auto"
    momentum: Fraction = 0.0
    weight_decay: Annotated[float, Meta(ge=0, le=1_000)] | None = None
    adam_lr_ratio: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    hard_example_fraction: Annotated[float, Meta(ge=0.001, le=1)] = 1.0
    label_smoothing: Fraction = 0.0
    flip: bool | Literal["auto"] = False
    shift: Annotated[int, Meta(ge=0, le=MAX_SHIFT)] = 0
    cutmix: Fraction = 0.0
    photo_augmentation: bool = False
    photo_fraction: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    photos: Annotated[str, Meta(max_length=4_096)] | None = None
    class_weights: bool = False
    tta_views: Views = (IDENTITY_VIEW,)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    full: bool = False
    data: Annotated[str, Meta(max_length=4_096)] | None = None

    def __post_init__(self) -> None:
        """Check every field, and drop the views that `flip` and `shift` exclude."""
        super().__post_init__()
        views = tuple(
            view for view in self.tta_views if (self.flip or not view[0]) and (self.shift or view[1:] == (0, 0))
        )
        force_setattr(self, "tta_views", views or (IDENTITY_VIEW,))

    def resolve(self, is_fashion_mnist: bool, on_gpu: bool = False) -> "Config":
        """Return the configuration with what depends on the data and the device decided.

        A mirrored garment is the same, a mirrored letter is not; photos of garments say nothing about letters. Larger
        batches keep a GPU busy, and their accuracy is the same on Fashion-MNIST (docs/log.md).

        Args:
            is_fashion_mnist: whether the data is Fashion-MNIST.
            on_gpu: whether Keras computes on a GPU.
        """
        flip = is_fashion_mnist if self.flip == "auto" else self.flip
        has_photos = is_fashion_mnist or self.photos is not None
        large = GPU_BATCH_SIZE if on_gpu and is_fashion_mnist else BATCH_SIZE
        batch_size = large if self.batch_size == "auto" else self.batch_size
        photo_fraction = self.photo_fraction if has_photos else 0.0
        return replace(self, flip=flip, photo_fraction=photo_fraction, batch_size=batch_size)

    def num_outputs(self, num_classes: int) -> int:
        """Return the number of outputs of the network: one for each class, and with photos one for none of them."""
        return num_classes + (self.photo_fraction > 0)

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate changes by a schedule."""
        return self.schedule in {"linear", "cosine", "custom"} or (self.schedule == "auto" and self.optimizer == "muon")

    @property
    def first_hard_epoch(self) -> int | None:
        """Number of the first epoch, from 1, on hard examples only. None if every epoch has all images."""
        return None if self.hard_example_fraction == 1 else math.ceil(1 / self.hard_example_fraction) + 1

    @classmethod
    def from_preset(cls, preset: str, **changes: Any) -> "Config":
        """Return a preset with some settings changed.

        Args:
            preset: a key of `PRESETS`.
            changes: fields of `Config`, for instance `epochs=3`.

        Raises:
            FmnistError: for an unknown preset, an unknown field or a value out of bounds.
        """
        if not isinstance(preset, str) or preset not in PRESETS:
            raise FmnistError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
        names = [field.name for field in fields(cls)]
        if unknown := sorted(set(changes) - set(names)):
            close = get_close_matches(unknown[0], names, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise FmnistError(f"unknown setting {', '.join(unknown)}; {hint}expected one of {', '.join(names)}")
        return replace(PRESETS[preset], **changes)


# A strong model in half a minute on two CPU cores. The ideas are those of the CIFAR-10 speedruns (Jordan 2024,
# arXiv 2404.00498): a frozen whitening layer, orthogonalized momentum, alternating flip. An epoch is half of the
# images: in the first two epochs random halves, then the half with the highest loss. docs/log.md has the gain of each.
FAST = Config(
    preset="fast",
    network="fast",
    epochs=9,
    batch_size="auto",
    optimizer="muon",
    learning_rate=0.12,
    momentum=0.8,
    adam_lr_ratio=1 / 12,
    hard_example_fraction=0.5,
    label_smoothing=0.1,
    flip="auto",
    shift=1,
    tta_views=TTA_VIEWS,
)

PRESETS: dict[str, Config] = {
    # The network of many tutorials, and the unit of time of the benchmarks. Always float32, so that a "textbook epoch"
    # is the same work everywhere. Its accuracy levels off at 12 epochs, at about 91 %.
    "textbook": Config(
        preset="textbook",
        network="textbook",
        epochs=12,
        batch_size=128,
        optimizer="adam",
        learning_rate=1e-3,
        precision="float32",
    ),
    "fast": FAST,
    # Under 100,000 parameters: narrower layers, and more epochs because each is quick.
    "tiny": replace(FAST, preset="tiny", network="tiny", epochs=40),
    # The highest accuracy within an hour on two CPU cores: wider, one convolution at full resolution, more epochs.
    "best": replace(FAST, preset="best", network="best", epochs=70, cutmix=0.5),
    # For photos of real garments too. Its int8 graph is small enough for the package. docs/log.md has the gain of each
    # setting.
    "photo": replace(
        FAST,
        preset="photo",
        network="photo",
        epochs=60,
        cutmix=0.3,
        photo_augmentation=True,
        photo_fraction=0.25,
    ),
}
