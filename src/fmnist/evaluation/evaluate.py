"""Score a finished run on the test images, by the very file that is shipped."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fmnist import atomic, locks, metrics
from fmnist.data.dataset import Dataset
from fmnist.errors import FmnistError
from fmnist.evaluation import report
from fmnist.inference.classifier import Classifier
from fmnist.runs import run as runs

NUM_TEST_IMAGES = 10_000
NUM_MISTAKES = 10
NUM_SAMPLES = 2


def evaluate(run: runs.Run | str | Path, seed: int | None = None) -> dict[str, Any]:
    """Score a run on every test image of the data that it was trained on, and write its report.

    Writes `evaluation.json` and `report.html` into the run folder.

    Args:
        run: a finished run, or its folder.
        seed: draws the two random test images; None draws the seed itself.

    Returns:
        What `evaluation.json` holds: `run`, the keys of `metrics.classification_report`, `accuracy_single_view`,
        `samples` and `mistakes` (lists of `index`, `true`, `predicted`, `probability`, `probabilities`; the
        mistakes are the ten most confident), `samples_seed` and `class_names`.

    Raises:
        FmnistError: if the run is not finished, its data is not at hand, or another process works on it.
    """
    run = run if isinstance(run, runs.Run) else runs.open_run(run)
    # Else the run could go on meanwhile, and get an evaluation of a model that it no longer has.
    with locks.hold(run.folder):
        return _evaluate(run, seed)


def _evaluate(run: runs.Run, seed: int | None) -> dict[str, Any]:
    classifier = Classifier.load(run)
    # The names that the model was trained with, should somebody have changed them in the data folder since.
    dataset = replace(run.load_data(), class_names=classifier.class_names)
    images, labels = dataset.test_images, dataset.test_labels

    outputs = classifier.outputs(images)
    probabilities, single_view = outputs["probabilities"], outputs["probabilities_single_view"]
    expected = NUM_TEST_IMAGES if dataset.is_fashion_mnist else len(labels)
    if not len(probabilities) == len(single_view) == expected:
        raise FmnistError(f"{len(probabilities)} answers for {expected} test images; expected one for each")
    seed = secrets.randbelow(2**31) if seed is None else seed
    evaluation = {
        "run": str(run.folder),
        **metrics.classification_report(probabilities, labels, classifier.class_names),
        "accuracy_single_view": float((single_view.argmax(axis=1) == labels).mean()),
        "samples": _records(draw_samples(len(labels), seed), probabilities, dataset),
        "samples_seed": seed,
        "mistakes": _records(most_confident_mistakes(probabilities, labels), probabilities, dataset),
        "class_names": list(classifier.class_names),
    }
    atomic.write_json(run.folder / "evaluation.json", evaluation)
    atomic.write(run.folder / "report.html", report.render(run, evaluation, dataset).encode())
    return evaluation


def draw_samples(num_images: int, seed: int) -> np.ndarray:
    """Draw the indices of two different images, or of one if there are no more."""
    return np.random.default_rng(seed).choice(num_images, size=min(NUM_SAMPLES, num_images), replace=False)


def most_confident_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give the indices of at most ten images that are wrong with the highest probability, highest first."""
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:NUM_MISTAKES]


def _records(indices: np.ndarray, probabilities: np.ndarray, dataset: Dataset) -> list[dict[str, Any]]:
    return [
        {
            "index": int(index),
            "true": dataset.class_names[dataset.test_labels[index]],
            "predicted": dataset.class_names[probabilities[index].argmax()],
            "probability": float(probabilities[index].max()),
            "probabilities": probabilities[index].astype(float).tolist(),
        }
        for index in indices
    ]
