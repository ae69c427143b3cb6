"""`model-plain.onnx`: a single view, for runtimes that cannot read the complete graph."""

import math
from typing import Any

import keras
import numpy as np

from fmnist.config import IDENTITY_VIEW
from fmnist.export.graph import LOG_EPSILON, CompleteGraph
from fmnist.export.onnx import check_agreement
from fmnist.export.onnx_file import to_onnx
from fmnist.files import lock_folder, write_atomic
from fmnist.inference.classifier import Classifier
from fmnist.models.user_functions import NetworkFunction
from fmnist.models.weights import load_model
from fmnist.runs.run import Run
from fmnist.runs.schemas import PLAIN_FILE

ops = keras.ops

NUM_CHECKED_IMAGES = 1_000


class PlainGraph(keras.Model):
    """From stored pixels to the probabilities of a single view, `probabilities`, with few kinds of operations."""

    def __init__(self, network: keras.Model, temperature: float, num_classes: int):
        """Wrap a network. Arguments as for `CompleteGraph`."""
        super().__init__()
        self.network, self.temperature, self.num_classes = network, temperature, num_classes

    def call(self, images: Any) -> dict[str, Any]:
        """Predict images, (n, 28, 28)."""
        values = ops.expand_dims(ops.cast(images, "float32") / 255, -1)
        for layer in self.network.layers if isinstance(self.network, keras.Sequential) else [self.network]:
            # Flatten computes its shape in the graph, and OpenCV takes that of the first image for all.
            is_flatten = isinstance(layer, keras.layers.Flatten)
            values = ops.reshape(values, (-1, math.prod(values.shape[1:]))) if is_flatten else layer(values)
        logits = ops.log(values + LOG_EPSILON) / self.temperature
        if values.shape[-1] > self.num_classes:
            logits = logits[:, : self.num_classes]
        return {"probabilities": ops.softmax(logits)}


def export_plain(run: Run, network: NetworkFunction | str | None = None) -> None:
    """Write `model-plain.onnx` of a finished run: opset 13, input `images`, output `probabilities` alone.

    Args:
        run: a finished run. Its data is not needed.
        network: for a run with a network of the user's own: the function that builds it, or its name.

    Raises:
        FmnistError: if the run is not finished or damaged, another process uses the folder, or the graph disagrees with
            Keras.
    """
    with lock_folder(run.folder):
        manifest = run.manifest()
        loaded, num_classes = load_model(run, network), len(manifest.class_names)
        graph = PlainGraph(loaded, manifest.temperature, num_classes)
        # Both compute the same function, so any images will do.
        images = np.random.default_rng(0).integers(0, 256, (NUM_CHECKED_IMAGES, 28, 28), np.uint8)
        complete = CompleteGraph(loaded, (IDENTITY_VIEW,), manifest.temperature, num_classes)
        expected = complete.numpy_outputs(images)["probabilities"]
        graph(images[:1])  # Keras exports a model only after it was called
        content = to_onnx(graph, manifest.class_names, plain=True)
        check_agreement(Classifier(content, manifest.class_names).predict(images), expected, 0.0)
        write_atomic(run.folder / PLAIN_FILE, content)
