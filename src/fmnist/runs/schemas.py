"""Schemas of the documents in a run folder. Each field has a type and bounds, whoever wrote the file."""

from datetime import datetime
from typing import Annotated, Literal, Optional

from msgspec import Meta

from fmnist.config import MAX_CLASSES, MAX_EPOCHS, Config, Fraction, Views
from fmnist.data.names import are_class_names
from fmnist.documents import FORMAT_VERSION, Document
from fmnist.errors import FmnistError

WEIGHTS_FILE = "weights.safetensors"
"""The weights after the last completed epoch."""
GRAPH_FILE = "model.onnx"
"""The complete graph, with the weights inside."""
INT8_FILE = "model-int8.onnx"
"""The quantized graph, which is exported on request."""
PLAIN_FILE = "model-plain.onnx"
"""The graph of a single view for other runtimes, which is exported on request."""
COLOR_FILE = "color.onnx"
"""The color network for photos, which comes with the package."""
PHOTO_MODEL_FILE = "photos.json"
"""What belongs to it."""
ADAPTED_FILE = "adapted.json"
"""What an adapted model is."""
ADAPTED_WEIGHTS_FILE = "adapted.npy"
"""Its last layer."""
KERAS_FILE = "model.keras"
"""The network in Keras' own format, which is exported on request."""
EXPORTS = (INT8_FILE, PLAIN_FILE, KERAS_FILE)

Text = Annotated[str, Meta(max_length=1_000)]
Count = Annotated[int, Meta(ge=0, le=10**9)]
Number = Annotated[float, Meta(ge=-1e30, le=1e30)]
"""A finite float: bounds also exclude NaN."""
Positive = Annotated[float, Meta(gt=0, le=1e30)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
# A pattern ends in \Z, because $ also matches before a trailing newline.
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\Z", max_length=255)]
"""A name without path separators, on every operating system."""
Vector = Annotated[list[Number], Meta(min_length=1, max_length=10_000)]
CustomPartName = Literal["network", "optimizer", "loss", "augment"]
"""What of a training can be the user's own."""
Matrix = Annotated[list[Vector], Meta(min_length=1, max_length=10_000)]


def _check_class_names(class_names: tuple[str, ...]) -> None:
    if not are_class_names(class_names):
        raise FmnistError(
            f"class_names is {str(class_names)[:100]!a}; expected 1 to {MAX_CLASSES} different names in printable "
            "characters"
        )


class CustomPart(Document, frozen=True, kw_only=True):
    """A part of a training that is the user's own. Its code is not in the run folder."""

    part: CustomPartName
    name: Text
    """Module and name of the function or class, or how the user named it: `module:function`, `file.py:function`."""
    sha256: Sha256 | None
    """Of its source, or of its configuration as Keras serializes it. None where there is neither."""


class RunDescription(Document, frozen=True, kw_only=True):
    """`config.json`: what the run is."""

    format_version: int = FORMAT_VERSION
    created: Annotated[datetime, Meta(tz=True)]
    config: Config
    custom: Annotated[tuple[CustomPart, ...], Meta(max_length=4)] = ()
    """What is the user's own."""


class Environment(Document, frozen=True, kw_only=True):
    """`environment.json`: what a result depends on besides the configuration."""

    format_version: int = FORMAT_VERSION
    python: Text
    versions: dict[Text, Text]
    """Package name to version."""
    platform: Text
    processor: Text
    threads: Annotated[int, Meta(ge=1, le=10**6)]
    """Processors that the process could use."""
    settings: dict[Text, Text]
    """Environment variables that TensorFlow and JAX read."""
    backend: Text
    """Of Keras."""
    device: Text | None = None
    """Name of the GPU. None where the processor trains."""
    devices: Annotated[int, Meta(ge=1, le=10**6)] = 1
    """GPUs, or other devices of JAX, that shared each batch."""
    precision: Text
    data_sha256: dict[FileName, Sha256]
    """Data file to the SHA-256 of its decompressed content."""
    class_names: tuple[str, ...] | None = None
    """None in runs of earlier versions."""
    photos_sha256: Sha256 | None = None
    """Of the file of photos. None for a run that is not trained on photos."""
    previous: Optional["Environment"] = None
    """The environment before the last resume, if that was different."""

    def __post_init__(self) -> None:
        """Check also the class names."""
        super().__post_init__()
        if self.class_names is not None:
            _check_class_names(self.class_names)


class ValidationRecord(Document, frozen=True, kw_only=True):
    """Scores on the validation images, averaged over the views, calibrated."""

    num_images: Count
    accuracy: Fraction
    cross_entropy: Number
    recall_macro: Fraction | None = None
    """Mean of the recalls of the classes. None in runs of earlier versions."""


class RejectionRuleRecord(Document, frozen=True, kw_only=True):
    """A `fmnist.inference.rejection.RejectionRule` as lists and numbers."""

    projection: Matrix
    class_means: Matrix
    mean: Vector
    variance: Annotated[list[Positive], Meta(min_length=1, max_length=10_000)]
    midpoint: Number
    scale: Positive
    threshold: Number

    def __post_init__(self) -> None:
        """Check also that the shapes fit each other."""
        super().__post_init__()
        widths = {len(row) for row in (*self.projection, *self.class_means, self.mean, self.variance)}
        if len(widths) > 1:
            raise FmnistError(f"rejection_rule has rows of {sorted(widths)} numbers; expected the same number in each")


class Agreement(Document, frozen=True, kw_only=True):
    """How closely the exported graph reproduces the Keras network."""

    num_images: Count
    max_difference: Number
    """Largest absolute difference between two probabilities."""
    same_top1: bool
    """Whether every image gets the same class."""
    max_difference_from_training_precision: Number
    """The same against the network in the precision that it was trained in."""


class Int8Record(Document, frozen=True, kw_only=True):
    """The int8 graph compared with the float32 graph."""

    bytes: Count
    compared_on: Literal["validation", "training"]
    num_images: Count
    same_top1: Fraction
    """Fraction of images with the same class from both graphs."""
    accuracy: Fraction | None
    """None on training images, where it would be misleading."""
    accuracy_float: Fraction | None


class Provenance(Document, frozen=True, kw_only=True):
    """Where a pretrained model comes from."""

    commit: Text
    preset: Text
    seed: Count
    data_sha256: dict[FileName, Sha256]


class Manifest(Document, frozen=True, kw_only=True):
    """`manifest.json`: what a reader of the exported graph needs to know."""

    format_version: int = FORMAT_VERSION
    class_names: tuple[str, ...]
    """One name per class, in the order of the graph's probabilities."""
    tta_views: Views
    temperature: Annotated[float, Meta(ge=0.01, le=100)]
    """Divides the averaged log-probabilities, inside the graph."""
    calibrated_by: Text | None
    """Name of the run whose validation images set temperature and threshold. None if the run is not calibrated."""
    validation: ValidationRecord | None
    """None for a run without a validation split."""
    rejection_rule: RejectionRuleRecord | None
    """None for a run that is not calibrated."""
    epochs_trained: Annotated[int, Meta(ge=0, le=MAX_EPOCHS)]
    parameters: Count
    train_seconds: Seconds
    """Of the whole training, without loading the data and export."""
    compile_seconds: Seconds | None = None
    """Of tracing and compiling the programs of the epochs, or reading them from a cache. None where `fit` runs step by
    step, and if the training was interrupted: then `train_seconds` is the sum of the epochs' seconds."""
    device_seconds: Seconds | None = None
    """Of running these programs, from their start until their results are there."""
    agreement: Agreement
    sha256: dict[FileName, Sha256]
    """File name to SHA-256, for the weights and each exported graph."""
    int8: Int8Record | None = None
    """None unless the int8 graph was exported."""
    provenance: Provenance | None = None
    """None except for the pretrained model."""

    def __post_init__(self) -> None:
        """Check also class names and hashes."""
        super().__post_init__()
        _check_class_names(self.class_names)
        if missing := {GRAPH_FILE, WEIGHTS_FILE} - self.sha256.keys():
            raise FmnistError(f"sha256 has no {' and no '.join(sorted(missing))}")


class Scores(Document, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What is read of `evaluation.json`, which has more."""

    num_images: Count
    accuracy: Fraction


class PhotoModelRecord(Document, frozen=True, kw_only=True):
    """`photos.json` beside the pretrained model: the color network, and how it is combined with the other network."""

    format_version: int = FORMAT_VERSION
    outputs: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=MAX_CLASSES)]
    """Names of the outputs of the color network: categories of photos."""
    color_weight: Fraction
    """Of the color network's probabilities; the other network has the rest."""
    temperature: Annotated[float, Meta(ge=0.01, le=100)]
    """Exponent of the averaged probabilities, as 1 / temperature."""
    threshold: Fraction
    """Lowest probability that is accepted."""
    sha256: Sha256
    """Of the color network's graph."""
    photos_sha256: Sha256
    """Of the file of reduced photos, whose split was used."""
    commit: Text


class AdaptedRecord(Document, frozen=True, kw_only=True):
    """`adapted.json`: a last layer for other classes, which takes the place of that of the color network.

    The scores are those of cross-validation.
    """

    format_version: int = FORMAT_VERSION
    class_names: tuple[str, ...]
    """One name per class, in the order of the columns of the weights."""
    num_photos: tuple[Count, ...]
    """Of each class."""
    accuracy: Fraction
    accuracy_interval_95: tuple[Fraction, Fraction]
    recall_macro: Fraction
    """Mean of the recalls of the classes."""
    accepted: Fraction
    """Share of the photos that are accepted."""
    accuracy_accepted: Fraction | None
    """None if no photo is accepted."""
    shrinkage: Fraction
    """Weight of the mean variance in the common covariance of the classes."""
    temperature: Annotated[float, Meta(ge=0.01, le=100_000)]
    """Divides the scores of the classes."""
    threshold: Fraction
    """Lowest probability that is accepted."""
    sha256: Sha256
    """Of the weights."""
    color_sha256: Sha256
    """Of the color network's graph."""

    def __post_init__(self) -> None:
        """Check also the class names."""
        super().__post_init__()
        _check_class_names(self.class_names)
        if len(self.num_photos) != len(self.class_names):
            raise FmnistError(f"num_photos has {len(self.num_photos)} numbers; expected {len(self.class_names)}")
