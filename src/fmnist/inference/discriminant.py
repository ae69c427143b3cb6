"""Linear discriminant analysis of few examples, with regularization, temperature and threshold by cross-validation.

The classes have the same covariance, which is shrunk to a multiple of the identity.
"""

from typing import Any

import numpy as np

from fmnist.metrics import accuracy_interval, recall_macro

NUM_FOLDS = 5
SHRINKAGES = (0.1, 0.5, 0.9, 0.99, 0.999)
"""Weights of the mean variance in the covariance that are tried."""
TEMPERATURES = np.geomspace(1, 10_000, 41)
MIN_THRESHOLD = 0.5
"""Otherwise other classes together are more probable."""
ACCURACY_OF_ACCEPTED = 0.97
"""The lowest threshold is chosen with which this share of the accepted examples is right."""


def fit_and_score(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit the last layer, and choose and score it by stratified cross-validation.

    Args:
        features: (n, width).
        labels: (n,) indices of the classes, at least `NUM_FOLDS` of each.

    Returns:
        Weights, (width + 1, classes) float32, and the fields of `AdaptedRecord` that this sets.
    """
    fold = _folds(labels)
    held_out = np.empty((len(SHRINKAGES), len(labels), labels.max() + 1))
    for number in range(NUM_FOLDS):
        fitted = fit(features[fold != number], labels[fold != number])
        for scores, weights in zip(held_out, fitted, strict=True):
            scores[fold == number] = class_scores(weights, features[fold == number])
    # As if there were one more example, of any class: few examples, all of them right, do not make the model certain.
    known = np.eye(held_out.shape[2])[labels]
    targets = (len(labels) * known + 1 / held_out.shape[2]) / (len(labels) + 1)
    _, chosen, temperature = min(
        (-(targets * np.log(softmax(scores / value) + 1e-12)).sum(), index, value)
        for index, scores in enumerate(held_out)
        for value in TEMPERATURES
    )
    probabilities = softmax(held_out[chosen] / temperature)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    is_right = predicted == labels
    thresholds = np.unique(confidence[confidence >= MIN_THRESHOLD])
    threshold = next(
        (value for value in thresholds if is_right[confidence >= value].mean() >= ACCURACY_OF_ACCEPTED), 1.0
    )
    is_accepted = confidence >= threshold
    return fit(features, labels)[chosen].astype(np.float32), {
        "accuracy": float(is_right.mean()),
        "accuracy_interval_95": accuracy_interval(int(is_right.sum()), len(labels)),
        "recall_macro": recall_macro(predicted, labels),
        "accepted": float(is_accepted.mean()),
        "accuracy_accepted": float(is_right[is_accepted].mean()) if is_accepted.any() else None,
        "shrinkage": SHRINKAGES[chosen],
        "temperature": float(temperature),
        "threshold": float(threshold),
    }


def _folds(labels: np.ndarray) -> np.ndarray:
    """Deal the examples of each class, in random order, to the folds: (n,) from 0 to `NUM_FOLDS` - 1."""
    rng = np.random.default_rng(0)
    fold = np.empty(len(labels), int)
    for label in range(labels.max() + 1):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        fold[of_class] = np.arange(len(of_class)) % NUM_FOLDS
    return fold


def fit(features: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return the weights, (width + 1, classes), with each of `SHRINKAGES`."""
    values = features.astype(np.float64)
    means = np.stack([values[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    center = means.mean(axis=0)
    _, singular, axes = np.linalg.svd(values - means[labels], full_matrices=False)
    variance = singular**2 / len(values)
    mean_variance = variance.sum() / values.shape[1] + 1e-9
    found = []
    for shrinkage in SHRINKAGES:
        # The inverse covariance, by its axes: outside the span of the examples it is that of the mean variance alone.
        outside = 1 / (shrinkage * mean_variance)
        inside = 1 / ((1 - shrinkage) * variance + shrinkage * mean_variance)
        directions = outside * (means - center) + ((means - center) @ axes.T * (inside - outside)) @ axes
        bias = -0.5 * (directions * (means - center)).sum(axis=1) - directions @ center
        found.append(np.concatenate([directions.T, bias[np.newaxis]]))
    return found


def class_scores(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the scores of the classes for features, (n, width): (n, classes) float64."""
    wide = weights.astype(np.float64)
    scores: np.ndarray = features.astype(np.float64) @ wide[:-1] + wide[-1]
    return scores


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities, (n, classes); each row sums to 1."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
