"""The rejection rule, on clusters of artificial features."""

import json

import msgspec
import numpy as np
import pytest

from fmnist.errors import FmnistError
from fmnist.inference.rejection import THRESHOLD_QUANTILE, RejectionRule, entropy_confidence
from fmnist.runs.schemas import RejectionRuleRecord

NUM_CLASSES, WIDTH = 5, 12


@pytest.fixture(scope="module")
def clusters():
    """Features of five classes, their labels, and the centers of the classes."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 6, (NUM_CLASSES, WIDTH))
    labels = np.arange(2_000) % NUM_CLASSES
    return centers[labels] + rng.normal(0, 1, (2_000, WIDTH)), labels, centers


def outputs(probabilities, features, **others):
    return {"probabilities": probabilities, "features": features, **others}


@pytest.fixture(scope="module")
def rule(clusters):
    features, labels, _ = clusters
    fitted = RejectionRule.fit(features[:1_000], labels[:1_000])
    return fitted.calibrated(outputs(np.eye(NUM_CLASSES)[labels[1_000:]], features[1_000:]))


def test_class_centers_are_more_typical_than_their_mean(rule, clusters):
    _, _, centers = clusters
    mean = centers.mean(axis=0, keepdims=True)
    assert (rule.relative_mahalanobis(centers) > rule.relative_mahalanobis(mean)).all()
    assert rule.in_distribution_probability(centers).min() > 0.9
    assert rule.in_distribution_probability(mean) < 0.1


def test_threshold_is_a_quantile_of_the_validation_confidence(rule, clusters):
    features, labels, _ = clusters
    confidence = rule.confidence(outputs(np.eye(NUM_CLASSES)[labels[1_000:]], features[1_000:]))
    assert np.mean(confidence < rule.threshold) == pytest.approx(THRESHOLD_QUANTILE, abs=0.005)


def test_scale_and_offset_of_the_features_do_not_matter(clusters, rule):
    features, labels, _ = clusters
    rng = np.random.default_rng(1)
    moved = 3 * features + rng.normal(size=WIDTH)
    fitted = RejectionRule.fit(moved[:1_000], labels[:1_000])
    np.testing.assert_allclose(fitted.relative_mahalanobis(moved), rule.relative_mahalanobis(features), rtol=1e-6)


def test_confidence_needs_typical_features_and_certain_probabilities(rule, clusters):
    _, _, centers = clusters
    certain = np.eye(NUM_CLASSES)[:1]
    uncertain = np.array([[0.5, 0.5, 0, 0, 0]])
    typical, atypical = centers[:1], centers.mean(axis=0, keepdims=True)
    assert rule.confidence(outputs(certain, typical)) >= rule.threshold
    assert rule.confidence(outputs(uncertain, typical)) < rule.threshold
    assert rule.confidence(outputs(certain, atypical)) < rule.threshold


def test_entropy_confidence_is_0_for_a_uniform_distribution_and_1_for_certainty():
    probabilities = np.array([[0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(entropy_confidence(probabilities), [0, 0.5, 1], atol=1e-6)


def test_a_rule_survives_the_manifest(rule, clusters):
    features, labels, _ = clusters
    record = msgspec.convert(json.loads(json.dumps(rule.to_record().to_json())), RejectionRuleRecord)
    loaded = RejectionRule.from_record(record)
    assert loaded.to_record() == rule.to_record()
    probabilities = np.eye(NUM_CLASSES)[labels]
    np.testing.assert_allclose(
        loaded.confidence(outputs(probabilities, features)),
        rule.confidence(outputs(probabilities, features)),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("projection", [[1.0]]), ("projection", []), ("class_means", [[1, 2], [3]]), ("midpoint", None),
     ("midpoint", [1.0]), ("variance", ["a"]), ("variance", [0.0] * 4), ("scale", 0.0), ("threshold", float("nan")),
     ("mean", 3.0)],
)  # fmt: skip
def test_an_invalid_record_is_refused(rule, name, value):
    with pytest.raises((msgspec.ValidationError, FmnistError)):
        msgspec.convert({**rule.to_record().to_json(), name: value}, RejectionRuleRecord)


def test_two_classes_are_enough():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = rng.normal(size=(200, 3)) + 5 * labels[:, np.newaxis]
    fitted = RejectionRule.fit(features, labels).calibrated(outputs(np.eye(2)[labels], features))
    assert fitted.projection.shape == (3, 1)
    assert np.isfinite(fitted.confidence(outputs(np.eye(2)[labels], features))).all()


def test_the_probability_of_none_of_the_classes_lowers_the_confidence(rule, clusters):
    features, labels, _ = clusters
    probabilities = np.eye(NUM_CLASSES)[labels]
    before = rule.confidence(outputs(probabilities, features))
    after = rule.confidence(outputs(probabilities, features, none_probability=np.full((len(labels), 1), 0.75)))
    np.testing.assert_allclose(after, before / 4)
