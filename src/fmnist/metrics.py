"""What a classifier is worth, from its probabilities: NumPy and scikit-learn, no Keras."""

from typing import Any

import numpy as np

CALIBRATION_BINS = 15


def wilson_interval(num_right: int, num_images: int, z: float = 1.959964) -> tuple[float, float]:
    """Give the range that holds the true accuracy, by Wilson's score (1927).

    Args:
        num_right: images classified rightly, 0 to `num_images`.
        num_images: images classified, at least 1.
        z: quantile of the normal distribution; 1.959964 is for 95 %.

    Returns:
        Lower and upper end, each from 0 to 1.
    """
    share = num_right / num_images
    centre = share + z**2 / (2 * num_images)
    margin = z * np.sqrt(share * (1 - share) / num_images + z**2 / (4 * num_images**2))
    scale = 1 + z**2 / num_images
    return float(max(0.0, (centre - margin) / scale)), float(min(1.0, (centre + margin) / scale))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Measure how far the top-1 probability is from the share of right answers (Guo et al. 2017).

    Args:
        probabilities: (n, classes), rows that sum to 1.
        labels: (n,) true class indices.

    Returns:
        The mean gap over 15 bins of equal width, weighted by their counts, 0 to 1.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=right.astype(float) - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def thresholded_precision_recall(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Compute what `keras.metrics.Precision()` and `Recall()` show for one-hot labels.

    Every one of the n x classes probabilities above 0.5 counts as a claim. It is a micro average over all
    classes in which an image whose classes all stay at 0.5 or below makes no claim at all.

    Args:
        probabilities: (n, classes).
        labels: (n,) true class indices.

    Returns:
        Precision (right claims of all claims; 0 if there are none) and recall (right claims of all images).
    """
    claims = probabilities > 0.5
    num_right = int(claims[np.arange(len(labels)), labels].sum())
    num_claims = int(claims.sum())
    return (num_right / num_claims if num_claims else 0.0), num_right / len(labels)


def classification_report(
    probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Score top-1 answers.

    Args:
        probabilities: (n, classes).
        labels: (n,) true class indices, n at least 1.
        class_names: one for each column.

    Returns:
        `num_images`, `accuracy`, `accuracy_interval_95` (Wilson), `precision_macro`, `recall_macro`, `f1_macro`
        (means over the classes), `keras_precision`, `keras_recall` (`thresholded_precision_recall`), `per_class`
        (a list of `label`, `precision`, `recall`, `f1`, `num_images`), `confusion` (rows are true, columns are
        predicted) and `ece`. Shares are from 0 to 1.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    num_right = int((predicted == labels).sum())
    classes = np.arange(len(class_names))
    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    precision, recall, f1, counts = (values.tolist() for values in scores)
    keras_precision, keras_recall = thresholded_precision_recall(probabilities, labels)
    return {
        "num_images": len(labels),
        "accuracy": num_right / len(labels),
        "accuracy_interval_95": list(wilson_interval(num_right, len(labels))),
        # of the classes that there are images of; another would count as a failure
        "precision_macro": float(np.mean(scores[0][scores[3] > 0])),
        "recall_macro": float(np.mean(scores[1][scores[3] > 0])),
        "f1_macro": float(np.mean(scores[2][scores[3] > 0])),
        "keras_precision": keras_precision,
        "keras_recall": keras_recall,
        "per_class": [
            {"label": name, "precision": p, "recall": r, "f1": f, "num_images": int(count)}
            for name, p, r, f, count in zip(class_names, precision, recall, f1, counts, strict=True)
        ],
        "confusion": confusion_matrix(labels, predicted, labels=classes).tolist(),
        "ece": expected_calibration_error(probabilities, labels),
    }


def temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature that makes held-out labels most likely (Guo et al. 2017).

    Args:
        log_probabilities: (n, classes), natural logarithms, up to a constant a row.
        labels: (n,) true class indices.

    Returns:
        T from 0.05 to 20: softmax(log_probabilities / T) is the calibrated answer. 1 changes nothing.
    """
    from scipy.optimize import minimize_scalar

    best = minimize_scalar(
        lambda log_t: cross_entropy(log_probabilities / np.exp(log_t), labels),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return float(np.exp(best.x))


def cross_entropy(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Give the mean surprise at the true labels, in nats; arguments as in `temperature`."""
    from scipy.special import log_softmax

    return float(-log_softmax(log_probabilities, axis=1)[np.arange(len(labels)), labels].mean())


def softmax(values: np.ndarray) -> np.ndarray:
    """Turn (n, classes) log-probabilities, up to a constant a row, into probabilities."""
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
