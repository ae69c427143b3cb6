"""Classification metrics from predicted probabilities, without Keras."""

from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

CALIBRATION_BINS = 15
"""Bins of the expected calibration error, as in Guo et al. (2017)."""
CONFIDENCE_LEVEL = 0.95
"""Of the interval around the accuracy."""


def accuracy_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy (Wilson 1927).

    Args:
        num_correct: images classified correctly, 0 to `num_images`.
        num_images: images classified, at least 1.

    Returns:
        Lower and upper end, each from 0 to 1.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)
    accuracy, scale = num_correct / num_images, 1 + z**2 / num_images
    center = (accuracy + z**2 / (2 * num_images)) / scale
    half = z / scale * sqrt(accuracy * (1 - accuracy) / num_images + (z / (2 * num_images)) ** 2)
    return (max(0.0, center - half) if num_correct else 0.0), min(1.0, center + half)


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Group predictions by their probability, and compare it with the accuracy of each group (Guo et al. 2017).

    Args:
        probabilities: (n, classes), rows that sum to 1.
        labels: (n,) true class indices.

    Returns:
        `num_images`, `probability` (mean probability of the predicted class), `accuracy` and `accuracy_interval_95` of
        each of 15 bins of equal width. Bins without images are left out.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        {
            "num_images": len(correct),
            "probability": float(confidence[bins == index].mean()),
            "accuracy": float(correct.mean()),
            "accuracy_interval_95": list(accuracy_interval(int(correct.sum()), len(correct))),
        }
        for index in np.unique(bins)
        if len(correct := is_correct[bins == index])
    ]


def expected_calibration_error(bins: list[dict[str, Any]]) -> float:
    """Return the mean difference between probability and accuracy, weighted by the images in each bin.

    Args:
        bins: as `calibration_bins` returns them.

    Returns:
        The expected calibration error (Guo et al. 2017), from 0 to 1.
    """
    num_images = sum(row["num_images"] for row in bins)
    total: float = sum(row["num_images"] * abs(row["accuracy"] - row["probability"]) for row in bins)
    return total / num_images


def thresholded_precision_recall(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Compute the values of `keras.metrics.Precision()` and `keras.metrics.Recall()` for one-hot labels.

    Each of the n x classes probabilities above 0.5 counts as a positive prediction. The result is a micro average over
    all classes. An image whose probabilities are all 0.5 or less has no positive prediction.

    Args:
        probabilities: (n, classes).
        labels: (n,) true class indices.

    Returns:
        Precision, the fraction of positive predictions that are correct (0 if there are none), and recall, the
        fraction of images with a correct positive prediction.
    """
    is_positive = probabilities > 0.5
    num_correct = int(is_positive[np.arange(len(labels)), labels].sum())
    num_positive = int(is_positive.sum())
    return (num_correct / num_positive if num_positive else 0.0), num_correct / len(labels)


def classification_metrics(
    probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Compute all metrics of a classifier from its probabilities for labeled images.

    Args:
        probabilities: (n, classes).
        labels: (n,) true class indices, n at least 1.
        class_names: one for each column.

    Returns:
        `num_images`, `accuracy`, `accuracy_interval_95` (`accuracy_interval`), `precision_macro`, `recall_macro`,
        `f1_macro` (means over the classes that have images), `keras_precision`, `keras_recall`
        (`thresholded_precision_recall`), `per_class` (a list of `label`, `precision`, `recall`, `f1`, `num_images`),
        `confusion` (rows are true classes, columns predicted ones), `calibration` (`calibration_bins`) and `ece`
        (`expected_calibration_error`). Fractions are from 0 to 1.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    num_correct = int((predicted == labels).sum())
    classes = np.arange(len(class_names))
    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    # A class without images has precision and recall 0, which says nothing about the classifier.
    precision_macro, recall_macro, f1_macro = (float(np.mean(values[scores[3] > 0])) for values in scores[:3])
    calibration = calibration_bins(probabilities, labels)
    keras_precision, keras_recall = thresholded_precision_recall(probabilities, labels)
    return {
        "num_images": len(labels),
        "accuracy": num_correct / len(labels),
        "accuracy_interval_95": list(accuracy_interval(num_correct, len(labels))),
        "precision_macro": precision_macro,
        "recall_macro": recall_macro,
        "f1_macro": f1_macro,
        "keras_precision": keras_precision,
        "keras_recall": keras_recall,
        "per_class": [
            {"label": name, "precision": precision, "recall": recall, "f1": f1, "num_images": int(count)}
            for name, precision, recall, f1, count in zip(
                class_names, *(values.tolist() for values in scores), strict=True
            )
        ],
        "confusion": confusion_matrix(labels, predicted, labels=classes).tolist(),
        "calibration": calibration,
        "ece": expected_calibration_error(calibration),
    }


def recall_macro(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of the recalls of the classes that have images: rare classes count as much as frequent ones.

    Args:
        predicted: (n,) class indices.
        labels: (n,) true class indices, n at least 1.
    """
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the lowest cross-entropy on held-out images (Guo et al. 2017).

    Args:
        log_probabilities: (n, classes), natural logarithms, up to a constant for each row.
        labels: (n,) true class indices.

    Returns:
        T from 0.05 to 20. The calibrated probabilities are softmax(log_probabilities / T), so 1 changes nothing.
    """
    from scipy.optimize import minimize_scalar

    best = minimize_scalar(
        lambda log_t: cross_entropy(log_probabilities / np.exp(log_t), labels),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return float(np.exp(best.x))


def cross_entropy(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy in nats. Arguments as in `fit_temperature`."""
    from scipy.special import log_softmax

    return float(-log_softmax(log_probabilities, axis=1)[np.arange(len(labels)), labels].mean())
