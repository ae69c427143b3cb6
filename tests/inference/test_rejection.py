"""Is it one of the classes, and which: the score behind "not sure"."""

import json

import numpy as np
import pytest

from fmnist.inference.rejection import QUANTILE, Acceptance, sureness

NUM_CLASSES, WIDTH = 5, 12


@pytest.fixture(scope="module")
def clouds():
    """Features of five classes, each a cloud of its own, and the clouds' centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 6, (NUM_CLASSES, WIDTH))
    labels = np.arange(2_000) % NUM_CLASSES
    return centres[labels] + rng.normal(0, 1, (2_000, WIDTH)), labels, centres


@pytest.fixture(scope="module")
def acceptance(clouds):
    features, labels, _ = clouds
    fitted = Acceptance.fit(features[:1_000], labels[:1_000])
    return fitted.calibrated(np.eye(NUM_CLASSES)[labels[1_000:]], features[1_000:])


def test_the_middle_of_everything_is_less_typical_than_each_class(acceptance, clouds):
    _, _, centres = clouds
    assert (acceptance.typicality(centres) > acceptance.typicality(centres.mean(axis=0, keepdims=True))).all()
    assert acceptance.likeness(centres).min() > 0.9
    assert acceptance.likeness(centres.mean(axis=0, keepdims=True)) < 0.1


def test_the_threshold_is_the_quantile_of_held_out_scores(acceptance, clouds):
    features, labels, _ = clouds
    scores = acceptance.score(np.eye(NUM_CLASSES)[labels[1_000:]], features[1_000:])
    assert np.mean(scores < acceptance.threshold) == pytest.approx(QUANTILE, abs=0.005)


def test_scale_and_origin_of_the_features_do_not_matter(clouds, acceptance):
    features, labels, _ = clouds
    rng = np.random.default_rng(1)
    moved = 3 * features + rng.normal(size=WIDTH)
    fitted = Acceptance.fit(moved[:1_000], labels[:1_000])
    np.testing.assert_allclose(fitted.typicality(moved), acceptance.typicality(features), rtol=1e-6)


def test_an_answer_is_doubted_for_either_half(acceptance, clouds):
    _, _, centres = clouds
    sure = np.eye(NUM_CLASSES)[:1]
    torn = np.array([[0.5, 0.5, 0, 0, 0]])
    at_home, between = centres[:1], centres.mean(axis=0, keepdims=True)
    assert acceptance.score(sure, at_home) >= acceptance.threshold
    assert acceptance.score(torn, at_home) < acceptance.threshold
    assert acceptance.score(sure, between) < acceptance.threshold


def test_sureness_goes_from_none_to_all():
    probabilities = np.array([[0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(sureness(probabilities), [0, 0.5, 1], atol=1e-6)


def test_it_survives_the_manifest(acceptance, clouds):
    features, labels, _ = clouds
    read = Acceptance.from_json(json.loads(json.dumps(acceptance.to_json())))
    probabilities = np.eye(NUM_CLASSES)[labels]
    np.testing.assert_allclose(
        read.score(probabilities, features), acceptance.score(probabilities, features), atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("projection", [[1.0]]), ("projection", []), ("class_centres", [[1, 2], [3]]), ("low", None), ("low", [1.0]),
     ("variance", ["a"]), ("threshold", float("nan")), ("centre", 3.0)],
)  # fmt: skip
def test_what_does_not_fit_is_refused(acceptance, name, value):
    with pytest.raises((TypeError, ValueError)):
        Acceptance.from_json({**acceptance.to_json(), name: value})


def test_two_classes_are_enough():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = rng.normal(size=(200, 3)) + 5 * labels[:, np.newaxis]
    fitted = Acceptance.fit(features, labels).calibrated(np.eye(2)[labels], features)
    assert fitted.projection.shape == (3, 1)
    assert np.isfinite(fitted.score(np.eye(2)[labels], features)).all()
