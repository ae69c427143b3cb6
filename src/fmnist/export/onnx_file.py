"""ONNX files: a Keras model as the content of a file that describes itself."""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from fmnist.config import IMAGE_SIZE
from fmnist.inference.runtime import open_session
from fmnist.runs.schemas import GRAPH_FILE

PLAIN_OPSET = 13
"""Of a plain graph: read also by older and smaller runtimes. Keras' default is newer."""
DESCRIPTION = (
    "images: uint8 (num_images, 28, 28), 0 to 255, bright garment on black, no other preprocessing. "
    "probabilities: float32 (num_images, num_classes), in the order of class_names, a JSON list."
)


def to_onnx(model: keras.Model, class_names: Sequence[str], *, plain: bool = False) -> bytes:
    """Convert a model to the content of an ONNX file.

    `probabilities` is the first output, the dimensions have names, and the metadata has `class_names`.

    Args:
        model: maps `images`, uint8 (n, 28, 28), to `probabilities` and perhaps further outputs. It was called before.
        class_names: one for each column of the probabilities.
        plain: use an older operator set, and replace what some runtimes cannot read.
    """
    signature = [keras.InputSpec("uint8", (None, IMAGE_SIZE, IMAGE_SIZE), name="images")]
    options = {"opset_version": PLAIN_OPSET} if plain else {}
    exported = _convert(model, input_signature=signature, **options)
    if plain:
        flatten(exported)
    describe(exported, class_names)
    content: bytes = exported.SerializeToString()
    return content


def _convert(model: keras.Model, **options: Any) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch, warnings.catch_warnings():
        # Keras uses a name that NumPy deprecates.
        warnings.filterwarnings("ignore", message=".*np.object", category=FutureWarning)
        path = Path(scratch) / GRAPH_FILE
        with contextlib.redirect_stdout(io.StringIO()):
            model.export(path, format="onnx", verbose=False, **options)
        return onnx.load(path)


def layer_that_fails(network: keras.Model) -> keras.Layer | None:
    """Convert the layers of a network one by one, and return the first that cannot be. None if each can be."""
    for layer in network.layers:
        try:
            shape = layer.input.shape[1:]
        except (AttributeError, ValueError):  # a layer of a subclassed model, or one with several inputs
            continue
        single = keras.Sequential([keras.Input(shape), layer])
        try:
            single(np.zeros((1, *shape), layer.input.dtype))  # Keras exports only what was called
            open_session(_convert(single).SerializeToString(), layer.name)
        except Exception:  # whatever the converter raises
            return layer
    return None


def describe(model: onnx.ModelProto, class_names: Sequence[str]) -> None:
    """Put `probabilities` first among the outputs, name the dimensions, and describe the graph in its metadata."""
    outputs = sorted(model.graph.output, key=lambda output: output.name != "probabilities")
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "num_images"
    onnx.helper.set_model_props(model, {"class_names": json.dumps(list(class_names)), "description": DESCRIPTION})


def flatten(model: onnx.ModelProto) -> None:
    """Replace Squeeze after global pooling, (n, channels, 1, 1), by Flatten: OpenCV keeps a dimension of Squeeze."""
    for node in model.graph.node:
        if node.op_type == "Squeeze":
            node.op_type = "Flatten"
            del node.input[1:]
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("axis", 1))
    # ONNX Runtime warns of constants that nothing uses.
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
