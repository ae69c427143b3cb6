"""The numbers of the report, against definitions and against Keras itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmnist import metrics


def random_answers(seed, num_images=200, num_classes=10, sharpness=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_images)
    logits = rng.normal(size=(num_images, num_classes))
    logits[np.arange(num_images), labels] += rng.normal(1, 1, num_images) * sharpness
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_thresholded_precision_and_recall_are_those_of_keras(seed):
    import keras

    probabilities, labels = random_answers(seed)
    one_hot = np.eye(10, dtype=np.float32)[labels]
    expected = []
    for metric in (keras.metrics.Precision(), keras.metrics.Recall()):
        metric.update_state(one_hot, probabilities)
        expected.append(float(metric.result()))
    assert metrics.thresholded_precision_recall(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_without_a_claim_precision_is_zero():
    assert metrics.thresholded_precision_recall(np.full((4, 10), 0.1), np.arange(4)) == (0, 0)


@pytest.mark.parametrize(
    ("num_right", "num_images", "expected"),
    [
        (9_400, 10_000, (0.93517, 0.94448)),  # worked out by hand from the formula
        (0, 10, (0, 0.27753)),
        (10, 10, (0.72247, 1)),
    ],
)
def test_wilson_interval(num_right, num_images, expected):
    assert metrics.wilson_interval(num_right, num_images) == pytest.approx(expected, abs=2e-5)


@given(num_images=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_interval_holds_the_share(num_images, share):
    num_right = int(share * num_images)
    low, high = metrics.wilson_interval(num_right, num_images)
    assert 0 <= low <= num_right / num_images + 1e-12
    assert num_right / num_images - 1e-12 <= high <= 1


def test_calibration_error_by_hand():
    """Two bins: 0.9 and right in 1 of 2, 0.6 and right in 2 of 2; (0.4 * 2 + 0.4 * 2) / 4."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert metrics.expected_calibration_error(probabilities, np.array([0, 1, 0, 0])) == pytest.approx(0.4)


def test_certainty_that_is_right_is_perfectly_calibrated():
    assert metrics.expected_calibration_error(np.eye(10), np.arange(10)) == 0


def test_report_against_counts_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 2, 2])
    report = metrics.classification_report(np.eye(3)[predicted], labels, ("a", "b", "c"))
    assert report["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert [row["precision"] for row in report["per_class"]] == pytest.approx([1, 1 / 2, 1 / 2])
    assert [row["recall"] for row in report["per_class"]] == pytest.approx([2 / 3, 1 / 2, 1])
    assert report["recall_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert [row["num_images"] for row in report["per_class"]] == [3, 2, 1]


def test_a_class_without_images_is_no_failure():
    """As where `labels.txt` names more classes than there are pictures of."""
    probabilities = np.eye(3)[[0, 1, 0, 1]]
    report = metrics.classification_report(probabilities, np.array([0, 1, 0, 1]), ("a", "b", "c"))
    assert (report["precision_macro"], report["recall_macro"], report["f1_macro"]) == (1, 1, 1)
    assert [row["num_images"] for row in report["per_class"]] == [2, 2, 0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), distortion=st.floats(0.3, 3))
def test_temperature_undoes_a_distortion(seed, distortion):
    """Scaling all log-probabilities scales the best temperature by as much."""
    probabilities, labels = random_answers(seed, num_images=500)
    plain = metrics.temperature(np.log(probabilities), labels)
    distorted = metrics.temperature(np.log(probabilities) * distortion, labels)
    assert distorted == pytest.approx(plain * distortion, rel=0.02)
