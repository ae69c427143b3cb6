"""Train a residual network of your own, with SGD and cosine decay: python examples/own_network.py [EPOCHS]."""

import sys

import keras
from keras import layers

import fmnist


def network(num_classes):
    """Return a new network: images (n, 28, 28, 1) from 0 to 1 in, probabilities out."""
    images = keras.Input((28, 28, 1))
    values = layers.Conv2D(32, 3, padding="same")(images)
    for width in (32, 64, 128):
        shortcut = layers.Conv2D(width, 1, strides=2)(values)
        values = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(values)
        values = layers.ReLU()(layers.BatchNormalization()(values))
        values = layers.Conv2D(width, 3, padding="same", use_bias=False)(values)
        values = layers.ReLU()(layers.Add()([shortcut, layers.BatchNormalization()(values)]))
    values = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(values))
    return keras.Model(images, layers.Dense(num_classes, activation="softmax")(values))


if __name__ == "__main__":
    config = fmnist.Config.from_preset(
        "fast",
        epochs=int(sys.argv[1]) if sys.argv[1:] else 10,
        batch_size=128,
        optimizer="sgd",  # or pass an object: fmnist.train(config, optimizer=keras.optimizers.SGD(...))
        learning_rate=0.1,
        momentum=0.9,
        schedule="cosine",
    )
    run = fmnist.train(config, network=network)
    print(f"{run.manifest().parameters:,} parameters, test accuracy {fmnist.evaluate(run)['accuracy']:.2%}")
