"""A scikit-learn estimator, for `cross_val_score`, `Pipeline`, `GridSearchCV` and whatever else takes one."""

import tempfile
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from fmnist.config import IMAGE_SIZE, Config
from fmnist.data.arrays import as_images, check_lengths
from fmnist.data.dataset import Dataset
from fmnist.errors import FmnistError, type_of
from fmnist.inference.classifier import Classifier
from fmnist.models.user_functions import NetworkFunction
from fmnist.training.train import train


class FmnistClassifier(ClassifierMixin, BaseEstimator):
    """Train by `fmnist.train`, and predict by the exported graph, with scikit-learn's interface.

    A twelfth of the images calibrates the probabilities, so there have to be about twelve of each class. Without this
    part, by `settings={"full": True}`, probabilities are not calibrated. Images are mirrored only by `{"flip": True}`.
    A fitted estimator cannot be pickled, and its run folder was temporary: use `fmnist.train` for a model to keep.

    Attributes:
        classes_: (classes,) the labels, sorted, in the order of the probabilities.
        classifier_: the fitted `fmnist.Classifier`.
        n_features_in_: 784, the pixels of an image.
    """

    def __init__(
        self,
        preset: str = "fast",
        *,
        epochs: int | None = None,
        random_state: Any = 0,
        network: NetworkFunction | str | None = None,
        settings: dict[str, Any] | None = None,
    ):
        """Store the parameters, which `fit` checks.

        Args:
            preset: where the settings come from, as in `Config.from_preset`.
            epochs: None is the preset's number.
            random_state: the seed; or what scikit-learn takes, from which one is drawn.
            network: your own network, as for `fmnist.train`.
            settings: other fields of `Config`, for instance `{"batch_size": 64}`.
        """
        self.preset = preset
        self.epochs = epochs
        self.random_state = random_state
        self.network = network
        self.settings = settings

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Train a network.

        Args:
            X: (n, 28, 28) or (n, 784), whole numbers from 0 to 255 of any type; 0 is the background.
            y: (n,) labels of any kind, 2 to 100 different ones.

        Returns:
            The estimator itself.

        Raises:
            FmnistError: for images of another shape or range, or settings that cannot be used.
            ValueError: for labels that scikit-learn does not take for classes.
            TypeError: for settings that are parameters.
        """
        images, y = _to_images(X), column_or_1d(y)
        check_classification_targets(y)
        check_lengths(images, y, "X", "y")
        if self.settings is not None and not isinstance(self.settings, dict):
            raise FmnistError(f"settings is {type_of(self.settings)}; expected a dictionary, as {{'batch_size': 64}}")
        classes, labels = np.unique(y, return_inverse=True)
        is_seed = isinstance(self.random_state, Integral)
        seed = self.random_state if is_seed else check_random_state(self.random_state).randint(2**31 - 1)
        given = {} if self.epochs is None else {"epochs": _to_int(self.epochs)}
        config = Config.from_preset(self.preset, **given, seed=_to_int(seed), **(self.settings or {}))
        # Training reads no test image, and whoever calls `fit` holds out their own. But a data set has some.
        dataset = Dataset(images, labels, images[:1], labels[:1], tuple(map(str, classes)))
        with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
            run = train(config, network=self.network, dataset=dataset, folder=Path(scratch) / "run", verbose=False)
            classifier = Classifier.load(run)
        classifier.name = type(self).__name__
        self.classes_, self.classifier_, self.n_features_in_ = classes, classifier, IMAGE_SIZE**2
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the probabilities, (n, classes) float32. Images as for `fit`."""
        check_is_fitted(self)
        return self.classifier_.predict(_to_images(X))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the most probable label of each image, (n,). Images as for `fit`."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])


def _to_int(value: Any) -> Any:
    """Return a NumPy integer, as from `np.arange`, as Python's."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def _to_images(X: Any) -> np.ndarray:  # noqa: N803
    """Return (n, 28, 28) uint8. Floats are accepted if they are whole numbers, and not 0 and 1 alone."""
    if hasattr(X, "toarray"):
        raise FmnistError("X is a sparse matrix; expected an array: X.toarray()")
    images = np.asarray(X)
    if images.dtype.kind == "f" and images.size and images.min() >= 0 and images.max() <= 255 and images.max() != 1:
        as_bytes = images.astype(np.uint8)
        images = as_bytes if (as_bytes == images).all() else images
    return as_images(images, "X")
