"""The result of a classification, as Python objects and as JSON. The REST interface takes its schema from here."""

import base64
import io
from typing import Annotated, Any

import msgspec
from msgspec import Meta, structs
from PIL import Image

from fmnist.inference.photo import Kind

PngDataUri = Annotated[Image.Image, Meta(description="Data URI of a PNG.", extra_json_schema={"type": "string"})]
"""A picture in Python, a string in JSON."""


class ClassProbability(msgspec.Struct, frozen=True, rename={"class_index": "class"}):
    """A class and its probability."""

    label: Annotated[str, Meta(description="Name of the class.")]
    class_index: Annotated[int, Meta(description="Index of the class, from 0.")]
    probability: Annotated[float, Meta(description="Calibrated probability, from 0 to 1.")]


class Prediction(ClassProbability, frozen=True, kw_only=True):
    """The most probable class of a picture, whether to accept it, and the probabilities of all classes."""

    confidence: Annotated[
        float | None, Meta(description="Confidence from 0 to 1; null for a model without a rejection rule.")
    ]
    accepted: Annotated[
        bool | None,
        Meta(
            description="Whether the confidence reaches the model's threshold or, for a picture of too few details, "
            "halfway from it to 1; null without a rejection rule."
        ),
    ]
    reason: Annotated[str | None, Meta(description="Why the prediction was not accepted, in words; null otherwise.")]
    model: Annotated[str, Meta(description="Name of the model.")]
    kind: Annotated[
        Kind,
        Meta(description="What the picture was taken for: an image in the format of the data set, or a photo."),
    ]
    top: Annotated[list[ClassProbability], Meta(description="All classes by falling probability.")]
    steps: Annotated[
        dict[str, PngDataUri],
        Meta(description="Pictures of the conversion: original, mask, crop and 28x28. In JSON only on request."),
    ] = {}

    def to_json(self, include_steps: bool = False) -> dict[str, Any]:
        """Return the prediction as plain values.

        Args:
            include_steps: add the pictures of the conversion, each as a data URI of a PNG.

        Returns:
            `label`, `class`, `probability`, `confidence`, `accepted`, `reason`, `model`, `kind`, `top` and, if
            included, `steps`, in this order.
        """
        if include_steps:
            values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=data_uri)
        else:
            values = msgspec.to_builtins(structs.replace(self, steps={}))
            del values["steps"]
        return values


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a PNG in a data URI."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
