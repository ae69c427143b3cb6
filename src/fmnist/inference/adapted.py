"""A model that `fmnist adapt` has written: the color network with a last layer for other classes."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from PIL import Image

from fmnist.data.tables import read_array
from fmnist.documents import read_document
from fmnist.errors import FmnistError, printable
from fmnist.files import MAX_DOCUMENT_BYTES, read_bounded, sha256
from fmnist.inference import photo
from fmnist.inference.classifier import Classifier, Decision
from fmnist.inference.color import NUM_FEATURES, ColorNetwork, views_of
from fmnist.inference.discriminant import class_scores, softmax
from fmnist.runs.run import PRETRAINED_FOLDER
from fmnist.runs.schemas import ADAPTED_FILE, ADAPTED_WEIGHTS_FILE, AdaptedRecord

HINT = "`fmnist adapt` writes a new one from the photos"


class AdaptedClassifier(Classifier):
    """A classifier of photos into classes of the user's own. Every picture is taken as a photo.

    Attributes:
        record: its scores, and how they were measured.
    """

    def __init__(self, weights: np.ndarray, record: AdaptedRecord, color: ColorNetwork, name: str):
        """Build the model.

        Args:
            weights: (`NUM_FEATURES` + 1, classes) finite float32; the last row is the bias.
            record: the rest of the model.
            color: computes the features.
            name: the model's name in predictions and error messages.
        """
        self.record = record
        self.class_names = record.class_names
        self.rejection_rule = None
        self.threshold = self.photo_threshold = record.threshold
        self.name = name
        self.sha256 = record.sha256
        self.color = color
        self._weights = weights

    @classmethod
    def open(cls, folder: Path) -> "AdaptedClassifier":
        """Open the folder of an adapted model. A folder from anybody is safe to open.

        Raises:
            FmnistError: if a file is missing, damaged, or made for another color network.
        """
        record = read_document(folder / ADAPTED_FILE, AdaptedRecord, HINT)
        color = ColorNetwork.load(PRETRAINED_FOLDER)
        if record.color_sha256 != color.record.sha256:
            raise FmnistError(f"{folder} belongs to the color network of another version of fmnist; {HINT}")
        path = folder / ADAPTED_WEIGHTS_FILE
        content = read_bounded(path, MAX_DOCUMENT_BYTES, HINT)
        if sha256(content) != record.sha256:
            raise FmnistError(f"{path} is not the file that {ADAPTED_FILE} names (SHA-256 differs); {HINT}")
        weights = read_array(str(path), io.BytesIO(content), len(content))
        shape = (NUM_FEATURES + 1, len(record.class_names))
        if weights.dtype != np.float32 or weights.shape != shape or not np.isfinite(weights).all():
            raise FmnistError(
                f"{path} has {weights.dtype} of shape {weights.shape}; expected finite float32 of shape {shape}; {HINT}"
            )
        return cls(weights, record, color, printable(str(folder)))

    def outputs(self, images: np.ndarray) -> NoReturn:
        """Refuse images as arrays of the data set: the color network needs photos."""
        raise FmnistError(
            f"{self.name} is an adapted model, which takes photos and no arrays of images; use `classify`"
        )

    def _answer(self, source: Image.Image, kind: Literal["image", "photo"] | None) -> tuple[photo.Conversion, Decision]:
        if kind == "image":
            raise FmnistError(f"{self.name} is an adapted model, which takes every picture as a photo; omit `image`")
        converted = photo.convert(source, "photo")
        # The color network does not see the 28x28 pixels.
        conversion = replace(converted, steps={name: step for name, step in converted.steps.items() if name != "28x28"})
        assert self.color
        features = self.color.features(views_of(conversion))
        (probabilities,) = softmax(class_scores(self._weights, features[np.newaxis]) / self.record.temperature)
        top = self.sort_classes(probabilities)
        confidence = top[0].probability
        # As for other models: of a picture with few pixels the confidence must come halfway to 1.
        is_small = conversion.problem == photo.FEW_PIXELS
        if confidence >= ((1 + self.record.threshold) / 2 if is_small else self.record.threshold):
            return conversion, Decision(top, confidence, None)
        problem = conversion.problem or photo.light_problem(conversion.steps["original"])
        return conversion, Decision(top, confidence, problem or f"between {top[0].label} and {top[1].label}")
