"""What a training run is made of: one frozen dataclass, and presets as its named values."""

import math
import types
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fmnist.errors import FmnistError

View = tuple[bool, int, int]
"""One way to look at an image: mirrored or not, then rows and columns to shift it by."""

CENTRE: View = (False, 0, 0)
STRAIGHT_STEPS: tuple[View, ...] = tuple(
    (is_mirrored, *step) for step in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)) for is_mirrored in (False, True)
)
"""The image itself first, then moved by a pixel each way, and all of these mirrored."""

MAX_EPOCHS = 5_000
MAX_VIEWS = 64
MAX_SHIFT = 14
"""Pixels: half an image."""
BOUNDS: dict[str, tuple[float, float]] = {
    "epochs": (1, MAX_EPOCHS),
    "batch_size": (1, 100_000),
    "learning_rate": (0, 1_000),
    "momentum": (0, 1),
    "adam_share": (0, 1_000),
    "visited": (0.001, 1),
    "label_smoothing": (0, 1),
    "shift": (0, MAX_SHIFT),
    "cutmix": (0, 1),
    "seed": (0, 2**31 - 1),
}
"""What a number may be, both ends included. The file of a stranger must not make this program take all memory."""
MAX_TEXT = 4_096
"""Characters: as long as a path may be."""


@dataclass(frozen=True)
class Config:
    """Every choice of a run. Together with the data, it decides the weights."""

    preset: str
    """The name of the preset that this started from."""
    network: Literal["textbook", "whitened", "whitened_large", "whitened_medium", "whitened_small", "whitened_wide"]
    """Which builder in `fmnist.model` makes the network."""
    epochs: int
    """Times that the training images are gone through, or the share of them that `visited` says."""
    batch_size: int
    """Images a step."""
    optimizer: Literal["adam", "muon"]
    """`adam` at a constant rate, or `muon` with a rate that falls in a straight line to zero."""
    learning_rate: float
    """The rate; for `muon` its start."""
    momentum: float = 0.0
    """Of `muon`."""
    adam_share: float = 0.0
    """With `muon`, the rate of what is no convolution kernel, as a share of `learning_rate`."""
    visited: float = 1.0
    """Share of the training images that an epoch goes through; below 1, those that were hardest when last seen."""
    label_smoothing: float = 0.0
    """Probability taken from the true class and spread over all."""
    flip: bool = False
    """Mirror at random in the first epoch, then turn every image over from one epoch to the next."""
    shift: int = 0
    """Largest random shift, in pixels, in each direction."""
    cutmix: float = 0.0
    """Share of the images into which a part of another is pasted, their labels mixed likewise."""
    photolike: bool = False
    """Disturb a part of the images as photos would, and teach what is no garment of these classes."""
    views: tuple[View, ...] = (CENTRE,)
    """The views that the shipped graph averages over. The first is the single view."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` takes bfloat16 where the processor computes in it natively, else float32."""
    seed: int = 0
    """Decides split, initial weights, order, augmentation and dropout."""
    full: bool = False
    """Train on all training images, without a validation part."""
    data: str | None = None
    """A folder with a data set of the same format; None is Fashion-MNIST itself."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Config).items():
            value = getattr(self, name)
            least, most = BOUNDS.get(name, (-math.inf, math.inf))
            if not _fits(value, hint) or (name in BOUNDS and not least <= value <= most):
                within = f" from {least:.10g} to {most:.10g}" if name in BOUNDS else ""
                raise FmnistError(f"{name} is {str(value)[:100]}; expected {_words(hint)}{within}")
        if not are_views(self.views):
            raise FmnistError(
                f"views are {str(self.views)[:100]}; expected 1 to {MAX_VIEWS}, shifted by at most {MAX_SHIFT} pixels"
            )

    @classmethod
    def from_preset(cls, preset: str, **changes: Any) -> "Config":
        """Take a preset, with changes.

        Args:
            preset: a key of `PRESETS`.
            changes: fields of `Config` to set differently, for instance `epochs=3`.

        Returns:
            The configuration.

        Raises:
            FmnistError: for an unknown preset, an unknown field or a value out of range.
        """
        if preset not in PRESETS:
            raise FmnistError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(changes) - known):
            raise FmnistError(f"unknown setting {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
        return replace(PRESETS[preset], **changes)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Config":
        """Rebuild a configuration from what `to_json` gave.

        Raises:
            FmnistError: if a setting without a default is missing, or one is unknown or out of range.
        """
        try:
            views = tuple(tuple(view) for view in document["views"])
            return cls(**{**document, "views": views})
        except (KeyError, TypeError, ValueError) as error:
            raise FmnistError(f"not a configuration of this version of fmnist ({error})") from error

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as plain values for a JSON file."""
        return asdict(self)


def are_views(value: Any) -> bool:
    """Say whether these are views, as tuples or as JSON's lists, and no more or wider ones than make sense."""
    return (
        isinstance(value, list | tuple)
        and 1 <= len(value) <= MAX_VIEWS
        and all(isinstance(view, list | tuple) and [type(part) for part in view] == [bool, int, int] for view in value)
        and all(abs(rows) <= MAX_SHIFT and abs(columns) <= MAX_SHIFT for _, rows, columns in value)
    )


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a short text"}
    return plain.get(hint, f"a value of type {hint}")


def _fits(value: Any, hint: Any) -> bool:
    """Hold a value against the type of its field, strictly: no number as text, no truth value as a number."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is types.UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple and parts[-1] is ...:
        return isinstance(value, tuple) and len(value) <= MAX_EPOCHS and all(_fits(item, parts[0]) for item in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float:
        return type(value) in {int, float} and math.isfinite(value)
    return type(value) is hint and (hint is not str or len(value) <= MAX_TEXT)


# A strong model in half a minute on two CPU cores. The ideas are those of the CIFAR-10 speedruns (Jordan 2024,
# arXiv 2404.00498): a frozen whitening stem, orthogonalised momentum, alternating flip. An epoch is half the
# images: two halves at random, then the half that was hardest when last seen. docs/log.md has what each choice brought.
FAST = Config(
    preset="fast",
    network="whitened",
    epochs=9,
    batch_size=512,
    optimizer="muon",
    learning_rate=0.12,
    momentum=0.8,
    adam_share=1 / 12,
    visited=0.5,
    label_smoothing=0.1,
    flip=True,
    shift=1,
    views=STRAIGHT_STEPS,
)

PRESETS: dict[str, Config] = {
    # The network of a hundred tutorials, and the yardstick for everybody's seconds. Always float32, so that
    # a "textbook epoch" means the same everywhere. It has levelled off by 12 epochs, at about 91 %.
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
    # Under 100,000 parameters: narrower, and as it is quick, for longer.
    "tiny": replace(FAST, preset="tiny", network="whitened_small", epochs=40),
    # The highest accuracy within an hour on two CPU cores: wider, at full size before the first pooling, for longer.
    "best": replace(FAST, preset="best", network="whitened_large", epochs=70, cutmix=0.5),
    # For photos of real garments: it pays for them with accuracy on the data set's own pictures. Its int8 graph is
    # small enough to ship. Every image every epoch: by the hardest half it is 3 points worse on photos (docs/log.md).
    "photo": replace(FAST, preset="photo", network="whitened_medium", epochs=45, visited=1.0, photolike=True),
}
