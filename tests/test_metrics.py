"""Metrics, against their definitions, worked examples and Keras."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from fmnist import metrics


def random_predictions(seed, num_images=200, num_classes=10, sharpness=3.0):
    """Draw probabilities (n, classes) of a mediocre classifier, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_images)
    logits = rng.normal(size=(num_images, num_classes))
    logits[np.arange(num_images), labels] += rng.normal(1, 1, num_images) * sharpness
    return softmax(logits, axis=1).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_thresholded_precision_and_recall_equal_keras(seed):
    import keras

    probabilities, labels = random_predictions(seed)
    one_hot = np.eye(10, dtype=np.float32)[labels]
    expected = []
    for metric in (keras.metrics.Precision(), keras.metrics.Recall()):
        metric.update_state(one_hot, probabilities)
        expected.append(float(metric.result()))
    assert metrics.thresholded_precision_recall(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_precision_without_positive_predictions_is_zero():
    assert metrics.thresholded_precision_recall(np.full((4, 10), 0.1), np.arange(4)) == (0, 0)


@pytest.mark.parametrize(
    ("num_correct", "num_images", "expected"),
    [
        (9_400, 10_000, (0.93517, 0.94448)),  # worked out by hand from Wilson's formula
        (0, 10, (0, 0.27753)),
        (10, 10, (0.72247, 1)),
    ],
)
def test_accuracy_interval(num_correct, num_images, expected):
    assert metrics.accuracy_interval(num_correct, num_images) == pytest.approx(expected, abs=2e-5)


@settings(deadline=None)
@given(num_images=st.integers(1, 10_000), fraction=st.floats(0, 1))
def test_accuracy_interval_contains_the_accuracy(num_images, fraction):
    num_correct = int(fraction * num_images)
    low, high = metrics.accuracy_interval(num_correct, num_images)
    assert 0 <= low <= num_correct / num_images + 1e-12
    assert num_correct / num_images - 1e-12 <= high <= 1


def test_calibration_error_of_a_worked_example():
    """Two bins: 0.9 with 1 of 2 correct, 0.6 with 2 of 2 correct; (0.4 * 2 + 0.4 * 2) / 4."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert metrics.expected_calibration_error(
        metrics.calibration_bins(probabilities, np.array([0, 1, 0, 0]))
    ) == pytest.approx(0.4)


def test_certain_and_correct_predictions_have_no_calibration_error():
    assert metrics.expected_calibration_error(metrics.calibration_bins(np.eye(10), np.arange(10))) == 0


def test_classification_metrics_of_a_worked_example():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 2, 2])
    result = metrics.classification_metrics(np.eye(3)[predicted], labels, ("a", "b", "c"))
    assert result["num_images"] == 6
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["accuracy_interval_95"] == list(metrics.accuracy_interval(4, 6))
    assert result["precision_macro"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert result["recall_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert result["f1_macro"] == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert [row["label"] for row in result["per_class"]] == ["a", "b", "c"]
    assert [row["precision"] for row in result["per_class"]] == pytest.approx([1, 1 / 2, 1 / 2])
    assert [row["recall"] for row in result["per_class"]] == pytest.approx([2 / 3, 1 / 2, 1])
    assert [row["f1"] for row in result["per_class"]] == pytest.approx([4 / 5, 1 / 2, 2 / 3])
    assert [row["num_images"] for row in result["per_class"]] == [3, 2, 1]
    assert result["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_class_without_images_does_not_lower_the_macro_values():
    """`labels.txt` can name more classes than there are images of."""
    labels = np.array([0, 1, 0, 1])
    result = metrics.classification_metrics(np.eye(3)[labels], labels, ("a", "b", "c"))
    assert (result["precision_macro"], result["recall_macro"], result["f1_macro"]) == (1, 1, 1)
    assert [row["num_images"] for row in result["per_class"]] == [2, 2, 0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.3, 3))
def test_temperature_is_proportional_to_the_scale_of_the_logarithms(seed, scale):
    probabilities, labels = random_predictions(seed, num_images=500)
    temperature = metrics.fit_temperature(np.log(probabilities), labels)
    scaled_temperature = metrics.fit_temperature(np.log(probabilities) * scale, labels)
    assert scaled_temperature == pytest.approx(temperature * scale, rel=0.02)


def test_cross_entropy_of_a_worked_example():
    log_probabilities = np.log([[0.5, 0.5], [0.25, 0.75]])
    expected = -(np.log(0.5) + np.log(0.25)) / 2
    # A constant for each row changes nothing.
    for constant in (0, 7):
        assert metrics.cross_entropy(log_probabilities + constant, np.array([1, 0])) == pytest.approx(expected)


def test_recall_macro_counts_each_class_that_has_images_once():
    labels = np.array([0] * 97 + [2] * 3)
    assert metrics.recall_macro(np.zeros(100, int), labels) == 0.5
    assert metrics.recall_macro(labels, labels) == 1
