"""Measure what each trick of the preset `fast` brings: python benchmarks/ablation.py.

For each trick, `fast` is trained without it, with everything else and the number of steps unchanged, and compared with
`fast` of the same seed: same validation images, same random numbers where they are still used. The gain is the
difference in validation accuracy, as the exported graph scores it, in percentage points. The test images are not read.

Where the preset has no setting for a trick, its function is replaced for the run.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
from msgspec.structs import replace
from provenance import describe_provenance, write_result
from scipy import stats

import fmnist
from fmnist.config import IDENTITY_VIEW, PRESETS, TTA_VIEWS, Config
from fmnist.data.dataset import Dataset
from fmnist.models import networks
from fmnist.models.muon import Muon
from fmnist.training import train

RESULT = Path(__file__).parent / "results" / "ablation.json"
FAST = PRESETS["fast"]
ADAM_RATE = 0.01
"""Best of 0.001, 0.003, 0.01 and 0.03 on the validation images of seed 0 (docs/log.md)."""


def decaying_adam(config: Config, num_steps: int) -> keras.optimizers.Optimizer:
    """Return Adam for all variables, with a rate that decays as that of Muon does."""
    return keras.optimizers.Adam(keras.optimizers.schedules.PolynomialDecay(ADAM_RATE, num_steps, 0.0))


def constant_muon(config: Config, num_steps: int) -> keras.optimizers.Optimizer:
    """Return Muon at half the initial rate throughout: the mean of the decaying rate."""
    return Muon(config.learning_rate / 2, config.momentum, config.adam_lr_ratio)


def learn_whitening(network: keras.Sequential, images: np.ndarray) -> None:
    """Learn the first layer from its random initial weights, like every other convolution."""
    network.layers[0].trainable = True


def uniform(seed: int) -> keras.initializers.Initializer:
    """Initialize a convolution kernel at random on all channels. Argument as for `networks.Dirac`."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)


@dataclass(frozen=True)
class Trick:
    """A trick, and how to train without it."""

    title: str
    without: str
    """What is done instead."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of `Config`."""
    replacement: tuple[Any, str, Callable[..., Any]] | None = None
    """A module, the name of a function or class in it, and what replaces it."""


TRICKS = {
    "muon": Trick("Muon optimizer", "Adam, rate decaying to 0", replacement=(train, "make_optimizer", decaying_adam)),
    "decay": Trick(
        "Learning rate decays to 0", "constant, the same mean", replacement=(train, "make_optimizer", constant_muon)
    ),
    "whitening": Trick(
        "Whitening layer", "first layer random, learned", replacement=(train, "fit_whitening", learn_whitening)
    ),
    "dirac": Trick("Dirac initialization", "random on all channels", replacement=(networks, "Dirac", uniform)),
    # 5 epochs of all images are 11 % more steps than 9 of half the images.
    "hard_examples": Trick(
        "Hard half of the images", "5 epochs of all images", {"hard_example_fraction": 1.0, "epochs": 5}
    ),
    "label_smoothing": Trick("Label smoothing", "one-hot labels", {"label_smoothing": 0.0}),
    "flip": Trick(
        "Mirroring",
        "no mirrored images or views",
        {"flip": False, "tta_views": tuple(v for v in TTA_VIEWS if not v[0])},
    ),
    "shift": Trick(
        "Shifts by a pixel", "no shifted images or views", {"shift": 0, "tta_views": ((False, 0, 0), (True, 0, 0))}
    ),
    "tta": Trick("Ten views of each image", "a single view", {"tta_views": (IDENTITY_VIEW,)}),
}


def validation_accuracy(config: Config, trick: Trick | None, dataset: Dataset) -> float:
    """Train a configuration, without a trick if one is given, and return its validation accuracy."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fmnist-"))
        if trick and trick.replacement:
            stack.enter_context(mock.patch.object(*trick.replacement))
        run = fmnist.train(config, dataset=dataset, folder=folder)
        split = run.split(dataset)
        predicted = fmnist.Classifier.load(run).predict(split.val_images).argmax(axis=1)
    return float((predicted == split.val_labels).mean())


def summarize(name: str, accuracies: list[float], with_all: list[float]) -> dict[str, Any]:
    """Summarize the runs without a trick, paired with those of the whole preset by seed."""
    gains = 100 * (np.array(with_all) - np.array(accuracies))
    half_width = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / math.sqrt(len(gains)))
    return {
        "trick": name,
        "title": TRICKS[name].title,
        "without": TRICKS[name].without,
        "accuracies": accuracies,
        "accuracy_mean": float(np.mean(accuracies)),
        "gain_mean": float(gains.mean()),
        "gain_sd": float(gains.std(ddof=1)),
        "gain_interval_95": [float(gains.mean()) - half_width, float(gains.mean()) + half_width],
    }


def main() -> None:
    """Measure, print a table and, with --json, the result as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tricks", nargs="+", choices=TRICKS, default=list(TRICKS))
    parser.add_argument("--seeds", type=int, default=8, help="runs with and without each trick, seeds 0, 1, ...; >= 2")
    parser.add_argument("--epochs", type=int, help="instead of the preset's number")
    parser.add_argument("--data", type=Path, help="another data set of the same format")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    provenance = describe_provenance()
    dataset = fmnist.load(arguments.data)
    overrides = {"epochs": arguments.epochs} if arguments.epochs else {}
    with_all: list[float] = []
    without: dict[str, list[float]] = {name: [] for name in arguments.tricks}
    for seed in range(arguments.seeds):
        with_all.append(validation_accuracy(replace(FAST, seed=seed, **overrides), None, dataset))
        print(f"seed {seed}: {with_all[-1]:.2%} with all tricks", file=sys.stderr, flush=True)
        for name in arguments.tricks:
            config = replace(FAST, seed=seed, **{**TRICKS[name].changes, **overrides})
            without[name].append(validation_accuracy(config, TRICKS[name], dataset))
            print(f"seed {seed}: {without[name][-1]:.2%} without {name}", file=sys.stderr, flush=True)

    rows = [summarize(name, accuracies, with_all) for name, accuracies in without.items()]
    result = {
        "preset": FAST.preset,
        "seeds": arguments.seeds,
        "accuracies": with_all,
        "accuracy_mean": float(np.mean(with_all)),
        "tricks": sorted(rows, key=lambda row: -row["gain_mean"]),
        "is_fashion_mnist": dataset.is_fashion_mnist,
        "backend": keras.backend.backend(),
        **provenance,
    }
    print_table(result)
    write_result(result, arguments.out, arguments.json)


def print_table(result: dict[str, Any]) -> None:
    """Print the gain of every trick, highest first."""
    print(f"{result['preset']}: validation accuracy {result['accuracy_mean']:.2%}, n = {result['seeds']}")
    for row in result["tricks"]:
        low, high = row["gain_interval_95"]
        print(f"{row['title']}: {row['gain_mean']:+.2f} points (95 % {low:+.2f} to {high:+.2f}); {row['without']}")


if __name__ == "__main__":
    main()
