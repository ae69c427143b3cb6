"""Train a preset with an augmentation of your own: python examples/own_augmentation.py [EPOCHS]."""

import sys

import numpy as np

import fmnist

SIZE = 8


def erase(images, labels, rng):
    """Mirror half of the images, (n, 28, 28) uint8, and black out a square of 8x8 pixels in each."""
    images = np.where(rng.random((len(images), 1, 1)) < 0.5, images, images[:, :, ::-1])
    corners = rng.integers(0, 28 - SIZE, (len(images), 2), endpoint=True)
    for image, (top, left) in zip(images, corners, strict=True):
        image[top : top + SIZE, left : left + SIZE] = 0
    return images  # or `images, labels`, if the labels change too


if __name__ == "__main__":
    config = fmnist.Config.from_preset("fast", epochs=int(sys.argv[1]) if sys.argv[1:] else 9)
    run = fmnist.train(config, augment=erase)
    print(f"test accuracy {fmnist.evaluate(run)['accuracy']:.2%}; the report is {run.folder / 'report.html'}")
