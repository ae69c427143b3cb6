"""The scikit-learn estimator."""

import numpy as np
import pytest
from helpers import linear
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import fmnist
from fmnist.errors import FmnistError

LABELS = np.array(["dark", "gray", "white"])[np.arange(96) % 3]


@pytest.fixture(scope="module")
def images():
    """Thirty-two noisy images of each of three classes: dark, bright at the left, and bright everywhere."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 50, (96, 28, 28)).astype(np.uint8)
    values[1::3, :, :14] += 200
    values[2::3] += 200
    return values


def small(**parameters):
    return fmnist.FmnistClassifier(**{"epochs": 1, "network": linear, "settings": {"batch_size": 8}, **parameters})


@pytest.fixture(scope="module")
def fitted(images):
    return small(epochs=12).fit(images, LABELS)


def test_fit_and_predict(fitted, images):
    assert fitted.classes_.tolist() == ["dark", "gray", "white"]
    assert fitted.n_features_in_ == 784
    probabilities = fitted.predict_proba(images[:5])
    assert probabilities.shape == (5, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert fitted.predict(images[:5]).tolist() == LABELS[:5].tolist()
    assert fitted.score(images, LABELS) > 0.9
    assert fitted.classifier_.class_names == ("dark", "gray", "white")
    with pytest.raises(NotFittedError):
        small().predict(images)


@pytest.mark.parametrize(
    "form",
    [
        lambda images: images.reshape(-1, 784),
        lambda images: images.reshape(-1, 784).astype(float),
        lambda images: images.astype(np.int64),
        lambda images: images.tolist(),
    ],
    ids=["rows", "rows of floats", "int64", "lists"],
)
def test_images_of_other_forms_are_the_same(fitted, images, form):
    assert (fitted.predict_proba(form(images)) == fitted.predict_proba(images)).all()


def test_black_images_of_floats_are_accepted(fitted):
    assert fitted.predict(np.zeros((2, 784))).shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images / 255, r"X contains float64 images from 0 to 0.97.*expected uint8.*\(255 \* images\)"),
        (lambda images: (images > 99).astype(float), r"X contains float64 images from 0 to 1; .*\(255 \* images\)"),
        (lambda images: images - 300.0, "X contains float64 images from -300 to"),
        (lambda images: np.where(images > 3, np.nan, images), "X contains float64 images from nan"),
        (lambda images: images[:, :8, :8].reshape(-1, 64), r"an array of shape \(96, 64\); expected 28x28"),
        (lambda images: images[0], "X"),
        (lambda images: csr_array(images.reshape(-1, 784)), r"X is a sparse matrix; .*toarray\(\)"),
        (lambda images: images.astype(str), "X contains images of type"),
        (lambda images: images[:0], "X contains no images"),
    ],
)
def test_other_images_are_refused(fitted, images, change, message):
    for attempt in (fitted.predict, lambda changed: small().fit(changed, LABELS)):
        with pytest.raises(FmnistError, match=message) as caught:
            attempt(change(images))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "labels", "message"),
    [
        ({}, LABELS[:-1], "X contains 96 images, but y contains 95 labels"),
        ({}, np.linspace(0, 1, 96), "Unknown label type: continuous"),
        ({}, np.eye(3)[np.arange(96) % 3], "y should be a 1d array"),
        ({}, ["only one"] * 96, "expected at least two classes"),
        ({"preset": "fats"}, LABELS, "unknown preset 'fats'"),
        ({"epochs": 0}, LABELS, "epochs is 0; expected int >= 1"),
        ({"random_state": -1}, LABELS, "seed is -1; expected int >= 0"),
        ({"settings": "full"}, LABELS, "settings is a value of type str; expected a dictionary"),
        ({"settings": {"batchsize": 8}}, LABELS, "unknown setting batchsize"),
        ({"settings": {"epochs": 2}}, LABELS, "multiple values for keyword argument 'epochs'"),
        ({}, np.arange(96) % 48, r"too few for a validation part.*--full, in Python full=True"),
    ],
)
def test_other_labels_and_parameters_are_refused(images, parameters, labels, message):
    estimator = small(**parameters)
    with pytest.raises((FmnistError, ValueError, TypeError), match=message):
        estimator.fit(images, labels)
    with pytest.raises(NotFittedError):
        estimator.predict(images)


def test_labels_with_gaps_and_random_state(images):
    labels = np.array([-3, 7, 1000])[np.arange(96) % 3]
    first, second = (
        small(random_state=state).fit(images, labels) for state in (np.random.RandomState(5), np.random.RandomState(5))
    )
    assert first.classes_.tolist() == [-3, 7, 1000]
    assert set(first.predict(images)) <= {-3, 7, 1000}
    assert (first.predict_proba(images) == second.predict_proba(images)).all()


def test_tools_of_scikit_learn(images):
    rows = images.reshape(-1, 784)
    estimator = small(epochs=np.int64(2))
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params()
    pipeline = make_pipeline(FunctionTransformer(lambda values: 255 - values), copy)
    scores = cross_val_score(pipeline, rows, LABELS, cv=2, error_score="raise")
    assert scores.shape == (2,)
    settings = {"batch_size": 8, "full": True}
    split = ShuffleSplit(1, random_state=0)
    search = GridSearchCV(small(settings=settings), {"epochs": np.arange(1, 3)}, cv=split, refit=False)
    search.fit(images, LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    with pytest.raises(FmnistError, match=r"X contains float64 images from .*; expected uint8"):
        make_pipeline(StandardScaler(), small()).fit(rows, LABELS)
