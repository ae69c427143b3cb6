"""The prediction as JSON, and its schema."""

import base64
import io
import json

import msgspec
import numpy as np
import pytest
from PIL import Image

from fmnist.inference.prediction import ClassProbability, Prediction

KEYS = ["label", "class", "probability", "confidence", "accepted", "reason", "model", "kind", "top"]


def make_prediction(**changes) -> Prediction:
    top = [ClassProbability("Coat", 4, 0.75), ClassProbability("Shirt", 6, 0.25)]
    values = {
        "label": "Coat",
        "class_index": 4,
        "probability": 0.75,
        "confidence": 0.5,
        "accepted": False,
        "reason": "between Coat and Shirt",
        "model": "runs/a",
        "kind": "image",
        "top": top,
        "steps": {"28x28": Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28))},
    }
    return Prediction(**{**values, **changes})


def test_json_has_the_documented_keys_in_order():
    values = make_prediction().to_json()
    assert list(values) == KEYS
    assert values["class"] == 4
    assert values["top"][1] == {"label": "Shirt", "class": 6, "probability": 0.25}
    assert json.loads(json.dumps(values)) == values


def test_steps_are_png_data_uris():
    prediction = make_prediction()
    values = prediction.to_json(include_steps=True)
    assert list(values) == [*KEYS, "steps"]
    header, _, content = values["steps"]["28x28"].partition(",")
    assert header == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).tobytes() == prediction.steps["28x28"].tobytes()


@pytest.mark.parametrize(
    "changes", [{}, {"label": "Shirt"}, {"model": "runs/b"}, {"steps": {"28x28": Image.new("L", (28, 28))}}]
)
def test_predictions_are_equal_if_all_fields_are(changes):
    assert (make_prediction() == make_prediction(**changes)) == (not changes)


def test_the_schema_matches_the_json():
    (reference,), components = msgspec.json.schema_components([Prediction], ref_template="#/{name}")
    assert reference == {"$ref": "#/Prediction"}
    schema = components["Prediction"]
    assert list(schema["properties"]) == list(make_prediction().to_json(include_steps=True))
    assert schema["required"] == KEYS
    assert schema["properties"]["steps"]["additionalProperties"]["type"] == "string"
    assert all("description" in field for field in schema["properties"].values())
