"""Train on a data set of your own, here scikit-learn's 1,797 digits: python examples/own_data.py [EPOCHS]."""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fmnist

if __name__ == "__main__":
    digits = load_digits()
    enlarged = np.kron(digits.images, np.ones((3, 3)))  # (n, 8, 8) from 0 to 16 becomes (n, 24, 24)
    images = np.pad(enlarged * 255 / 16, ((0, 0), (2, 2), (2, 2))).round().astype("uint8")
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, digits.target, stratify=digits.target, random_state=0
    )
    # A folder or file instead: fmnist.load("PATH"), or on the command line --data PATH
    dataset = fmnist.Dataset(train_images, train_labels, test_images, test_labels, class_names=list("0123456789"))

    config = fmnist.Config.from_preset("fast", epochs=int(sys.argv[1]) if sys.argv[1:] else 20, batch_size=64)
    run = fmnist.train(config, dataset=dataset)
    print(f"test accuracy {fmnist.evaluate(run, dataset=dataset)['accuracy']:.2%}")

    classifier = fmnist.Classifier.load(run)
    probabilities = classifier.predict(test_images[:1])[0]
    print(f"the first test image is a {classifier.class_names[probabilities.argmax()]}, to {probabilities.max():.1%}")
