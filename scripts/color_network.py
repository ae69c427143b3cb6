"""Train the color network: EfficientNet-Lite0, whose last blocks learn the categories of the photos.

The first blocks stay as ImageNet has made them, so their features are computed once for every view.
"""

from collections.abc import Iterable
from typing import Any

import efficientnet
import keras
import numpy as np
import tensorflow as tf

OUTPUTS = ("t-shirt", "pants", "longsleeve", "dress", "outwear", "shirt", "shoes", "hat", "shorts", "skirt", "other")
"""Categories of the photos, and every other thing."""
NUM_THINGS = 150
"""Drawn pictures of each kind of other things to train on."""
FIRST_TRAINED_BLOCK = 11
NUM_STEPS = 300
BATCH_SIZE = 64
OTHER_FRACTION = 0.2
"""Of a batch: drawn things."""
LEARNING_RATE = 1e-3
"""Decays linearly to 0."""
WEIGHT_DECAY = 1e-4
LABEL_SMOOTHING = 0.1
DROPOUT = 0.2
PREDICTION_BATCH_SIZE = 128
CHUNK_SIZE = 16
"""Pictures whose features are computed at once, in four views each."""


def indices_of(categories: Iterable[str]) -> np.ndarray:
    """Return the index of the output for each category, (n,): that of `other` for a category without an output."""
    return np.array([OUTPUTS.index(name if name in OUTPUTS else "other") for name in categories])


def compute_features(weights: efficientnet.Weights, views: np.ndarray) -> np.ndarray:
    """Compute the outputs of the blocks that are not trained, for the views of pictures and their mirror images.

    Args:
        weights: of `efficientnet.download_weights`.
        views: (n, 2, 224, 224, 3) uint8, of `color_views`.

    Returns:
        (n, 4, 14, 14, 112) float16.
    """
    trunk = efficientnet.build(weights, -1, FIRST_TRAINED_BLOCK - 1, (efficientnet.SIZE, efficientnet.SIZE, 3))
    features = np.empty((len(views), 4, *trunk.output_shape[1:]), np.float16)
    for start in range(0, len(views), CHUNK_SIZE):
        chunk = views[start : start + CHUNK_SIZE]
        both = np.concatenate([chunk, chunk[:, :, :, ::-1]], axis=1).astype(np.float32)
        flat = (both.reshape(-1, *both.shape[2:]) - 127) / 128
        features[start : start + CHUNK_SIZE] = np.reshape(trunk(flat, training=False), (-1, *features.shape[1:]))
    return features


def train(weights: efficientnet.Weights, features: np.ndarray, category: np.ndarray, seed: int = 0) -> keras.Model:
    """Train the last blocks and a new last layer.

    Args:
        weights: where the blocks begin.
        features: (n, 4, 14, 14, 112) of `compute_features`.
        category: (n,) indices of `OUTPUTS`. Rare ones are drawn more often than their share.
        seed: of the draws and of dropout.

    Returns:
        The trained blocks, from features to logits.
    """
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    blocks = efficientnet.build(weights, FIRST_TRAINED_BLOCK, efficientnet.NUM_BLOCKS, features.shape[2:])
    values = keras.layers.GlobalAveragePooling2D()(blocks.output)
    values = keras.layers.Dropout(DROPOUT)(values)
    head = keras.layers.Dense(len(OUTPUTS), kernel_initializer="zeros", name="head")
    network = keras.Model(blocks.input, head(values))
    rate = keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, NUM_STEPS, 0.0)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY)
    compute_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING)

    @tf.function
    def step(batch: Any, labels: Any) -> None:
        with tf.GradientTape() as tape:
            loss = compute_loss(labels, network(batch, training=True))
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)

    is_other = category == OUTPUTS.index("other")
    weight = np.bincount(category, minlength=len(OUTPUTS))[category] ** -0.5
    weight[is_other] *= OTHER_FRACTION / weight[is_other].sum()
    weight[~is_other] *= (1 - OTHER_FRACTION) / weight[~is_other].sum()
    for _ in range(NUM_STEPS):
        drawn = rng.choice(len(features), BATCH_SIZE, p=weight)
        batch = features[drawn, rng.integers(0, 4, BATCH_SIZE)].astype(np.float32)
        step(tf.constant(batch), tf.constant(np.eye(len(OUTPUTS), dtype=np.float32)[category[drawn]]))
    return network


def predict(network: keras.Model, features: np.ndarray) -> np.ndarray:
    """Return the probabilities of each view, (n, 4, outputs) float32."""
    flat = features.reshape(-1, *features.shape[2:])
    starts = range(0, len(flat), PREDICTION_BATCH_SIZE)
    logits = [
        network(flat[start : start + PREDICTION_BATCH_SIZE].astype(np.float32), training=False) for start in starts
    ]
    probabilities: np.ndarray = keras.ops.convert_to_numpy(keras.ops.softmax(keras.ops.concatenate(logits)))
    return probabilities.reshape(len(features), -1, len(OUTPUTS))


def export(weights: efficientnet.Weights, network: keras.Model) -> bytes:
    """Return the whole network as an ONNX file."""
    layers = {layer.name: layer.get_weights() for layer in network.layers}
    trained = {
        each.name: tuple(layers[each.layer_name]) for each in efficientnet.convolutions() if each.layer_name in layers
    }
    return efficientnet.to_onnx({**weights, **trained}, tuple(layers["head"]))
