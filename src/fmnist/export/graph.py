"""The complete graph as a Keras model: from stored pixels to calibrated probabilities."""

from typing import Any

import keras
import numpy as np

from fmnist.config import IMAGE_SIZE, View

ops = keras.ops

LOG_EPSILON = 1e-30
"""Keeps logarithms finite where a probability has underflowed."""
BATCH_SIZE = 250
MAX_FEATURES = 2_048
"""Wider features, as those of a flattened convolution, are not used: the rejection rule inverts their covariance, which
takes cubic time, and its projection has to fit into the manifest."""


class CompleteGraph(keras.Model):
    """From stored pixels to final probabilities, around a network that maps scaled images to probabilities.

    The input is `images`, uint8 (n, 28, 28). The outputs, all float32, are `probabilities` and
    `probabilities_single_view`, (n, classes), and `features`, (n, width): the input of the last dense layer for the
    first view; or the log-probabilities where there is no such layer, or its input is wider than `MAX_FEATURES`. A
    network with a further output has also `none_probability`, (n, 1): that of none of the classes. The other
    probabilities sum to 1 nevertheless.
    """

    def __init__(self, network: keras.Model, views: tuple[View, ...], temperature: float, num_classes: int):
        """Wrap a network.

        Args:
            network: maps (n, 28, 28, 1) float32 in [0, 1] to probabilities.
            views: log-probabilities are averaged over these; the first is the single view.
            temperature: divides the averaged log-probabilities.
            num_classes: number of classes.
        """
        super().__init__()
        self.network = network
        self.with_features = _with_features(network)
        self.padding = max(abs(shift) for _, *shifts in views for shift in shifts)
        self.views = views
        self.temperature = temperature
        self.num_classes = num_classes

    def call(self, images: Any) -> dict[str, Any]:
        """Predict images from all views."""
        padding = (self.padding, self.padding)
        padded = ops.pad(images, ((0, 0), padding, padding))
        # The views are of uint8 pixels: building them in float32 took a quarter of the time of an int8 prediction in a
        # single view (docs/log.md).
        view_pixels = ops.stack([select_view(padded, view, self.padding) for view in self.views], axis=1)
        scaled = ops.reshape(ops.cast(view_pixels, "float32") / 255, (-1, *images.shape[1:], 1))
        features, probabilities = self._features_and_probabilities(scaled)
        num_views = len(self.views)
        by_view = ops.log(ops.reshape(probabilities, (-1, num_views, probabilities.shape[-1])) + LOG_EPSILON)
        logits, logits_single_view = ops.mean(by_view, axis=1) / self.temperature, by_view[:, 0] / self.temperature
        outputs = {
            "probabilities": ops.softmax(logits[:, : self.num_classes]),
            "probabilities_single_view": ops.softmax(logits_single_view[:, : self.num_classes]),
            "features": ops.reshape(features, (-1, num_views, features.shape[-1]))[:, 0],
        }
        if probabilities.shape[-1] > self.num_classes:
            outputs["none_probability"] = ops.softmax(logits)[:, self.num_classes :]
        return outputs

    def _features_and_probabilities(self, scaled: Any) -> tuple[Any, Any]:
        if self.with_features:
            features, probabilities = self.with_features(scaled, training=False)
            return ops.cast(features, "float32"), ops.cast(probabilities, "float32")
        probabilities = ops.cast(self.network(scaled, training=False), "float32")
        return ops.log(probabilities + LOG_EPSILON), probabilities

    def numpy_outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs in batches, as NumPy arrays. Same argument as `Classifier.outputs`."""
        starts = range(0, len(images), BATCH_SIZE)
        batches = [self(images[start : start + BATCH_SIZE]) for start in starts]
        return {name: np.concatenate([ops.convert_to_numpy(batch[name]) for batch in batches]) for name in batches[0]}


def _with_features(network: keras.Model) -> keras.Model | None:
    """Return a model with two outputs, the input of the last dense layer and the probabilities.

    Returns None if there is no such layer, or its input is too wide.
    """
    last_dense = next((each for each in reversed(network.layers) if isinstance(each, keras.layers.Dense)), None)
    try:
        features = last_dense.input if last_dense else None
    except (AttributeError, ValueError):  # a subclassed model, a layer that is called several times
        return None
    if features is None or len(features.shape) != 2 or features.shape[-1] > MAX_FEATURES:
        return None
    return keras.Model(network.inputs, [features, network.outputs[0]])


def select_view(padded: Any, view: View, padding: int) -> Any:
    """Return a view of images, (n, 28, 28), that have `padding` pixels added on each side."""
    is_mirrored, down, right = view
    rows, columns = (slice(padding - shift, padding - shift + IMAGE_SIZE) for shift in (down, right))
    return (padded[:, :, ::-1] if is_mirrored else padded)[:, rows, columns]
