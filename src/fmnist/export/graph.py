"""The complete graph as a Keras model: from stored pixels to calibrated probabilities."""

from typing import Any

import keras
import numpy as np

from fmnist.config import IMAGE_SIZE, View

ops = keras.ops

LOG_EPSILON = 1e-30
"""Keeps logarithms finite where a probability has underflowed."""
BATCH_SIZE = 100


class CompleteGraph(keras.Model):
    """From stored pixels to final probabilities, around a network that maps scaled images to probabilities.

    The inputs are `images`, uint8 (n, 28, 28), and `num_views`, the number of views to average over. The exported file
    gives `num_views` a default value. The outputs, all float32, are `probabilities` and `probabilities_single_view`,
    (n, classes), and `features`, (n, width), the input of the last layer for the first view.
    """

    def __init__(self, network: keras.Sequential, views: tuple[View, ...], temperature: float):
        """Wrap a network.

        Args:
            network: maps (n, 28, 28, 1) float32 in [0, 1] to probabilities; the layer `head` and those after it
                compute them from the features.
            views: log-probabilities are averaged over these; the first is the single view.
            temperature: divides the averaged log-probabilities.
        """
        super().__init__()
        head = [layer.name for layer in network.layers].index("head")
        self.backbone = keras.Sequential([keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1)), *network.layers[:head]])
        self.head = keras.Sequential([keras.Input(self.backbone.output_shape[1:]), *network.layers[head:]])
        self.padding = max(abs(shift) for _, *shifts in views for shift in shifts)
        self.rows, self.columns = map(np.stack, zip(*(view_indices(view, self.padding) for view in views), strict=True))
        self.temperature = temperature

    def call(self, images: Any, num_views: Any) -> dict[str, Any]:
        """Predict images from their first `num_views` views, clipped to the range from 1 to the number of views."""
        num_views = ops.clip(num_views, 1, len(self.rows))
        padding = (self.padding, self.padding)
        padded = ops.pad(images, ((0, 0), padding, padding))
        # Gather uint8 pixels, and only the views in use: building all views in float32 took a quarter of the time of an
        # int8 prediction in a single view (docs/log.md).
        rows, columns = (ops.convert_to_tensor(indices)[:num_views] for indices in (self.rows, self.columns))
        indices = ops.expand_dims(rows, 2) * padded.shape[2] + ops.expand_dims(columns, 1)
        view_pixels = ops.take(ops.reshape(padded, (-1, padded.shape[1] * padded.shape[2])), indices, axis=1)
        scaled = ops.reshape(ops.cast(view_pixels, "float32") / 255, (-1, *images.shape[1:], 1))
        features = ops.cast(self.backbone(scaled), "float32")
        probabilities = ops.cast(self.head(features), "float32")
        by_view = ops.log(ops.reshape(probabilities, (-1, num_views, probabilities.shape[-1])) + LOG_EPSILON)
        return {
            "probabilities": ops.softmax(ops.mean(by_view, axis=1) / self.temperature),
            "probabilities_single_view": ops.softmax(by_view[:, 0] / self.temperature),
            "features": ops.reshape(features, (-1, num_views, features.shape[-1]))[:, 0],
        }

    def numpy_outputs(self, images: np.ndarray, *, single_view: bool = False) -> dict[str, np.ndarray]:
        """Compute the outputs in batches, as NumPy arrays. Same arguments as `Classifier.outputs`."""
        num_views = np.array(1 if single_view else len(self.rows))
        starts = range(0, len(images), BATCH_SIZE)
        batches = [self(images[start : start + BATCH_SIZE], num_views) for start in starts]
        return {name: np.concatenate([ops.convert_to_numpy(batch[name]) for batch in batches]) for name in batches[0]}


def view_indices(view: View, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns that a view shows of an image with `padding` pixels added on each side.

    Returns:
        (28,) and (28,) int32.
    """
    is_mirrored, down, right = view
    pixels = np.arange(IMAGE_SIZE, dtype=np.int32)
    columns = padding - right + pixels
    return padding - down + pixels, IMAGE_SIZE + 2 * padding - 1 - columns if is_mirrored else columns
