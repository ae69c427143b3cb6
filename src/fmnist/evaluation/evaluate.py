"""Evaluation of a finished run on the test images, with the exported graph."""

import logging
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.data.dataset import Dataset, check_is_dataset
from fmnist.documents import write_json
from fmnist.errors import FmnistError, one_line
from fmnist.evaluation.occlusion import occlusion_maps
from fmnist.evaluation.predictions import PREDICTIONS_FILE, predictions_csv
from fmnist.evaluation.report import render_report
from fmnist.files import lock_folder, write_atomic
from fmnist.inference.classifier import Classifier
from fmnist.metrics import classification_metrics
from fmnist.runs.run import Run, open_run

log = logging.getLogger("fmnist")

NUM_MISTAKES = 10
"""Mistakes in the evaluation, and in the report for each class: the most confident."""
NUM_SAMPLES = 2


def evaluate(run: Run | str | Path, seed: int | None = None, *, dataset: Dataset | None = None) -> dict[str, Any]:
    """Evaluate a run on every test image of the data that it was trained on.

    Writes `evaluation.json`, `predictions.csv` and `report.html` into the run folder. If it cannot be written, that is
    logged, and the scores are returned.

    Args:
        run: a finished run, or its folder.
        seed: selects the two random test images. None selects a random seed.
        dataset: the run's data, if it is loaded already or in memory. None looks for it by its hash.

    Returns:
        The content of `evaluation.json`: `run`, the metrics of `metrics.classification_metrics`,
        `accuracy_single_view`, `samples` and `mistakes` (lists of `index`, `true`, `predicted`, `probability` and
        `probabilities`; the mistakes are the ten most confident), `samples_seed` and `class_names`.

    Raises:
        FmnistError: if the run is not finished, its data is not found, or another process uses the run.
    """
    evaluation, problem = evaluate_and_save(run, seed, dataset=dataset)
    if problem:
        log.warning("the evaluation is not saved: %s", problem)
    return evaluation


def evaluate_and_save(
    run: Run | str | Path, seed: int | None = None, *, dataset: Dataset | None = None
) -> tuple[dict[str, Any], str | None]:
    """Evaluate a run as `evaluate` does, and return also why it is not saved; None if it is."""
    run = run if isinstance(run, Run) else open_run(run)
    check_is_dataset(dataset)
    if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
        raise FmnistError(f"seed is {seed!r}; expected a whole number from 0, or None for a random one")
    # Without the lock, training could resume meanwhile, and the evaluation would be of a model that is gone.
    with lock_folder(run.folder):
        return _evaluate(run, secrets.randbelow(2**31) if seed is None else int(seed), dataset)


def _evaluate(run: Run, seed: int, dataset: Dataset | None) -> tuple[dict[str, Any], str | None]:
    classifier, manifest = Classifier.load(run), run.manifest()
    environment, history = run.environment(), run.history()
    # The class names of the model are used even if those in the data folder have changed since.
    dataset = replace(dataset or run.load_data(), class_names=classifier.class_names)
    run.check_data(dataset, environment.data_sha256)

    outputs = classifier.outputs(dataset.test_images)
    probabilities, single_view = outputs["probabilities"], outputs["probabilities_single_view"]
    labels = dataset.test_labels
    mistakes = find_mistakes(probabilities, labels)
    evaluation = {
        "run": str(run.folder),
        **classification_metrics(probabilities, labels, classifier.class_names),
        "accuracy_single_view": float((single_view.argmax(axis=1) == labels).mean()),
        "samples": describe_predictions(draw_samples(len(labels), seed), probabilities, dataset),
        "samples_seed": seed,
        "mistakes": describe_predictions(mistakes[:NUM_MISTAKES], probabilities, dataset),
        "class_names": list(classifier.class_names),
    }
    class_mistakes = {
        int(label): describe_predictions(mistakes[labels[mistakes] == label][:NUM_MISTAKES], probabilities, dataset)
        for label in np.unique(labels[mistakes])
    }
    shown = mistakes[:NUM_MISTAKES]
    heat_maps = occlusion_maps(classifier, dataset.test_images[shown], probabilities[shown].argmax(axis=1))
    report = render_report(run, manifest, environment, history, evaluation, class_mistakes, heat_maps, dataset)
    try:
        write_json(run.folder / "evaluation.json", evaluation)
        write_atomic(run.folder / PREDICTIONS_FILE, predictions_csv(probabilities, labels, classifier.class_names))
        write_atomic(run.folder / "report.html", report.encode(errors="backslashreplace"))
    except OSError as error:
        return evaluation, one_line(error)
    return evaluation, None


def draw_samples(num_images: int, seed: int) -> np.ndarray:
    """Return the indices of two different random images, or of one if there is only one."""
    return np.random.default_rng(seed).choice(num_images, size=min(NUM_SAMPLES, num_images), replace=False)


def find_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the indices of all wrong predictions, those with the highest probability first."""
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")]


def describe_predictions(indices: np.ndarray, probabilities: np.ndarray, dataset: Dataset) -> list[dict[str, Any]]:
    """Describe the predictions for some test images with plain values."""
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
