"""Train models of tutorials and libraries, and score each: python benchmarks/leaderboard.py NAME... [--out FOLDER].

The settings are those that the source of each model publishes, and the defaults of its library for the rest. None was
tuned. Each model is trained once, on all training images, and scored once by `fmnist.score` as it is after its last
epoch. Its result is one file. `scripts/build_leaderboard.py` makes the table of all of them.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from provenance import describe_provenance, write_result
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from time_to_accuracy import TextbookEpochTimer

import fmnist
from fmnist.data.dataset import Dataset

RESULTS = Path(__file__).parent / "results" / "leaderboard"
TIMES = ("train_seconds", "textbook_epoch_seconds_all", "textbook_epochs")
NUM_TEXTBOOK_EPOCHS = 3
"""Textbook epochs that are timed, the unit in which training times are given. The quickest counts."""

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Trained:
    """A trained model."""

    predict: Predict
    parameters: int | None
    """Numbers that were learned, where they are of one kind; None for a forest, boosted trees and support vectors."""
    epochs: int | None
    """None where the library has no epochs."""


@dataclass(frozen=True)
class Entry:
    """A model of the leaderboard."""

    title: str
    source: str
    """Where the settings are published."""
    settings: str
    train: Callable[[Dataset, int | None, int], Trained]
    """From the data, the number of epochs (None is that of the source) and the seed to the trained model."""


def train_estimator(estimator: Any, dataset: Dataset, epochs: int | None, seed: int) -> Trained:
    """Train a classifier of scikit-learn on flat images from 0 to 1."""
    if epochs is not None:
        raise SystemExit("--epochs is for networks")
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=seed)
    estimator.fit(dataset.train_images.reshape(-1, 784) / 255, dataset.train_labels)
    is_linear = hasattr(estimator, "coef_")
    answer = estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.predict
    return Trained(
        lambda images: answer(images.reshape(-1, 784) / 255),
        estimator.coef_.size + estimator.intercept_.size if is_linear else None,
        None,
    )


def entry_of(estimator: Any, settings: str) -> Entry:
    """Return the entry of a classifier of scikit-learn."""
    name = type(estimator).__name__

    def train(dataset: Dataset, epochs: int | None, seed: int) -> Trained:
        return train_estimator(estimator, dataset, epochs, seed)

    return Entry(f"scikit-learn {name}", f"documentation of scikit-learn, {name}", settings, train)


def fit(
    network: keras.Model,
    dataset: Dataset,
    epochs: int,
    batch_size: int,
    optimizer: keras.optimizers.Optimizer,
    validation_split: float = 0.0,
) -> Trained:
    """Train a network that returns logits on images from 0 to 1, (n, 28, 28, 1)."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss)
    network.fit(
        scale(dataset.train_images),
        dataset.train_labels,
        batch_size=batch_size,
        epochs=epochs,
        validation_split=validation_split,
        verbose=0,
    )
    return as_trained(network, epochs)


def as_trained(network: keras.Model, epochs: int) -> Trained:
    """Return a trained network that takes images from 0 to 1, with its parameters."""
    return Trained(
        lambda images: np.asarray(network.predict(scale(images), verbose=0)), int(network.count_params()), epochs
    )


def scale(images: np.ndarray) -> np.ndarray:
    """Return (n, 28, 28, 1) float32 from 0 to 1."""
    return images[..., np.newaxis].astype(np.float32) / 255


def train_keras_convnet(dataset: Dataset, epochs: int | None, seed: int) -> Trained:
    """Train the network of Keras' example "Simple MNIST convnet". Its softmax is in the loss here."""
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(len(dataset.class_names)),
        ]
    )
    return fit(network, dataset, epochs or 15, 128, keras.optimizers.Adam(), validation_split=0.1)


def train_tensorflow_dense(dataset: Dataset, epochs: int | None, seed: int) -> Trained:
    """Train the network of TensorFlow's tutorial "Basic classification: Classify images of clothing"."""
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(len(dataset.class_names)),
        ]
    )
    return fit(network, dataset, epochs or 10, 32, keras.optimizers.Adam())


def train_pytorch_mlp(dataset: Dataset, epochs: int | None, seed: int) -> Trained:
    """Train the network of PyTorch's "Quickstart", with the initial weights of `torch.nn.Linear`."""

    def linear(num_inputs: int, num_outputs: int, activation: str | None = "relu") -> keras.Layer:
        bound = 1 / math.sqrt(num_inputs)
        weights, bias = (keras.initializers.RandomUniform(-bound, bound) for _ in range(2))
        return layers.Dense(num_outputs, activation, kernel_initializer=weights, bias_initializer=bias)

    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            linear(784, 512),
            linear(512, 512),
            linear(512, len(dataset.class_names), None),
        ]
    )
    return fit(network, dataset, epochs or 5, 64, keras.optimizers.SGD(1e-3))


RESNET_EPOCHS = 164
"""64,000 steps of 128 of CIFAR-10's 50,000 images."""
RESNET_BATCH = 128
WEIGHT_DECAY = 1e-4


def build_resnet20(num_classes: int) -> keras.Model:
    """Build the ResNet-20 of He et al. (2016) for CIFAR-10, with one input channel.

    Three stages of three blocks, with 16, 32 and 64 filters. A stage begins with a stride of 2, but the first, and its
    shortcut then leaves out pixels and adds channels of zeros (their option A).
    """

    def convolve(x: Any, filters: int, stride: int = 1) -> Any:
        x = layers.Conv2D(
            filters,
            3,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(WEIGHT_DECAY / 2),
        )(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU()(convolve(inputs, 16))
    for filters, first_stride in ((16, 1), (32, 2), (64, 2)):
        for stride in (first_stride, 1, 1):
            shortcut = x
            if stride == 2:
                added = filters // 4  # on each side
                shortcut = keras.ops.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (added, added)))
            x = layers.ReLU()(convolve(x, filters, stride))
            x = layers.ReLU()(layers.Add()([convolve(x, filters), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    head = layers.Dense(
        num_classes, kernel_initializer="he_normal", kernel_regularizer=keras.regularizers.L2(WEIGHT_DECAY / 2)
    )
    return keras.Model(inputs, head(x))


def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut 28x28 pixels at random out of each image with 4 pixels of black around it, and mirror half of them."""
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4)))
    rows, columns = rng.integers(0, 9, (2, len(images), 1, 1))
    pixels = np.arange(28)
    cut = padded[np.arange(len(images))[:, None, None], rows + pixels[:, None], columns + pixels]
    return np.where(rng.random((len(images), 1, 1)) < 0.5, cut[:, :, ::-1], cut)


def train_resnet20(dataset: Dataset, epochs: int | None, seed: int) -> Trained:
    """Train a ResNet-20 as He et al. (2016) do on CIFAR-10. With fewer epochs, the rate falls as much earlier."""
    num_epochs = epochs or RESNET_EPOCHS
    mean = dataset.train_images.mean(axis=0, keepdims=True)[..., np.newaxis].astype(np.float32) / 255
    network = build_resnet20(len(dataset.class_names))
    steps = num_epochs * math.ceil(len(dataset.train_images) / RESNET_BATCH)
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([steps // 2, steps * 3 // 4], [0.1, 0.01, 0.001])
    network.compile(
        keras.optimizers.SGD(rate, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    rng = np.random.default_rng(seed)
    for _ in range(num_epochs):
        images = scale(augment(dataset.train_images, rng)) - mean
        network.fit(images, dataset.train_labels, batch_size=RESNET_BATCH, epochs=1, verbose=0)
    return Trained(
        lambda images: np.asarray(network.predict(scale(images) - mean, verbose=0)),
        int(network.count_params()),
        num_epochs,
    )


ENTRIES = {
    "keras-convnet": Entry(
        "Keras' example: Simple MNIST convnet",
        'keras.io, "Simple MNIST convnet"',
        "2 convolutions, dropout 0.5; Adam, batches of 128, 15 epochs of 90 % of the training images",
        train_keras_convnet,
    ),
    "tensorflow-dense": Entry(
        "TensorFlow's tutorial: Basic classification",
        'tensorflow.org, "Basic classification: Classify images of clothing"',
        "128 hidden units; Adam, batches of 32, 10 epochs",
        train_tensorflow_dense,
    ),
    "pytorch-mlp": Entry(
        "PyTorch's Quickstart",
        'pytorch.org, "Quickstart"',
        "twice 512 hidden units; SGD at 0.001, batches of 64, 5 epochs",
        train_pytorch_mlp,
    ),
    "resnet20": Entry(
        "ResNet-20",
        "He et al. 2016, arXiv 1512.03385, section 4.2 (CIFAR-10)",
        "SGD with momentum 0.9 at 0.1, 0.01 and 0.001, weight decay 0.0001, batches of 128, shifts by up to 4 pixels, "
        "mirrored, the mean image subtracted; 164 epochs for their 64,000 steps",
        train_resnet20,
    ),
    "logistic-regression": entry_of(LogisticRegression(), "defaults (100 iterations, not converged)"),
    "random-forest": entry_of(RandomForestClassifier(n_jobs=-1), "defaults (100 trees)"),
    "svm": entry_of(SVC(), "defaults (RBF kernel, C = 1)"),
    "boosting": entry_of(HistGradientBoostingClassifier(), "defaults (100 iterations, early stopping)"),
}
"""The models by name."""


def measure(name: str, dataset: Dataset, epochs: int | None, seed: int, timer: TextbookEpochTimer) -> dict[str, Any]:
    """Train and score a model, and time textbook epochs before and after."""
    entry = ENTRIES[name]
    timer.seconds.clear()
    timer.measure()
    keras.utils.set_random_seed(seed)
    started = time.perf_counter()
    trained = entry.train(dataset, epochs, seed)
    train_seconds = time.perf_counter() - started
    timer.measure(NUM_TEXTBOOK_EPOCHS - 1)
    score = fmnist.score(trained.predict, dataset)
    options = [name, *(["--epochs", str(epochs)] if epochs else []), *(["--seed", str(seed)] if seed else [])]
    return {
        "name": name,
        "title": entry.title,
        "source": entry.source,
        "settings": entry.settings,
        "command": f"python benchmarks/leaderboard.py {' '.join(options)}",
        "n": 1,
        "seed": seed,
        "epochs": trained.epochs,
        "epochs_changed": epochs is not None,
        "parameters": trained.parameters,
        "train_seconds": train_seconds,
        "textbook_epoch_seconds_all": list(timer.seconds),
        "textbook_epochs": train_seconds / min(timer.seconds),
        "score": {**score, "model": name},
    }


def main() -> None:
    """Train and score the models that are named, and write a result file for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="+", choices=ENTRIES, metavar="NAME", help=", ".join(ENTRIES))
    parser.add_argument("--epochs", type=int, help="of networks, instead of the number that is published")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="another data set of the same format")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result files")
    parser.add_argument("--untimed", action="store_true", help="record no times, because the machine has other work")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    provenance = describe_provenance()
    dataset = fmnist.load(arguments.data)
    timer = TextbookEpochTimer(dataset)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = []
    for name in arguments.names:
        result = {
            **measure(name, dataset, arguments.epochs, arguments.seed, timer),
            "is_fashion_mnist": dataset.is_fashion_mnist,
            "backend": keras.backend.backend(),
            **provenance,
        }
        print(f"{name}: {result['score']['accuracy']:.2%} in {result['train_seconds']:.1f} s")
        if arguments.untimed:
            result |= dict.fromkeys(TIMES)
            result["score"]["images_per_second"] = None
        write_result(result, arguments.out / f"{name}.json", as_json=False)
        results.append(result)
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
