"""Whether an answer should be trusted: is this one of the classes, and is it sure which? NumPy alone.

A softmax has to name a class for anything at all, so its probability cannot say "none of these". The features
under it can: discriminants (Fisher 1936) put each class of clothes into a round cloud of its own, and what is none
of them lies between the clouds.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

QUANTILE = 0.06
"""Share of the validation images that stay below the threshold: chosen on development photos (docs/log.md)."""
SHRINKAGE = 0.1
"""Share of the classes' common covariance that is replaced by its mean variance, so that it can be inverted."""
FARTHEST = 0.001
"""Share of the validation images that are passed over when it is asked how far out images of the data set lie."""
DIGITS = 6
"""Kept of every number in a manifest, which is read by people too."""


@dataclass(frozen=True)
class Acceptance:
    """Where the classes lie among the features of a network, and how near is near enough."""

    projection: np.ndarray
    """(width, classes - 1) float64: from features to discriminants, in which each class has a spread of 1."""
    class_centres: np.ndarray
    """(classes, classes - 1) of each class among the discriminants."""
    centre: np.ndarray
    """(classes - 1,) of all classes together."""
    variance: np.ndarray
    """(classes - 1,) of all classes together."""
    low: float = 0.0
    """The typicality at which likeness is one half."""
    scale: float = 1.0
    """The typicality by which likeness goes from one half to about three quarters."""
    threshold: float = 0.0
    """The lowest score that is accepted."""

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "Acceptance":
        """Learn where the classes lie.

        Args:
            features: (n, width), what the last layer of a network sees of training images.
            labels: (n,) their classes, at least two of them.

        Returns:
            All but scale and threshold, which `calibrated` sets.
        """
        numbers, labels = np.unique(labels, return_inverse=True)
        centres = _centres(features, labels)
        within = np.cov((features - centres[labels]).T)
        mean_variance = np.trace(within) / len(within) + 1e-12
        within = (1 - SHRINKAGE) * within + SHRINKAGE * mean_variance * np.eye(len(within))
        whitening = np.linalg.inv(np.linalg.cholesky(within)).T
        directions = np.linalg.svd((centres - centres.mean(axis=0)) @ whitening, full_matrices=False)[2]
        projection = whitening @ directions[: len(numbers) - 1].T
        placed = features @ projection
        projection = projection / ((placed - _centres(placed, labels)[labels]).std(axis=0) + 1e-12)
        placed = features @ projection
        return cls(projection, _centres(placed, labels), placed.mean(axis=0), placed.var(axis=0) + 1e-12)

    def calibrated(self, probabilities: np.ndarray, features: np.ndarray) -> "Acceptance":
        """Set the scale and the threshold by images that the network was not trained on.

        Args:
            probabilities: (n, classes), calibrated.
            features: (n, width).
        """
        lowest, lower, upper = np.quantile(self.typicality(features), [FARTHEST, 0.25, 0.75])
        spread = max(float(upper - lower), 1e-6)
        # A photo lies farther out than any image of a studio, and may still be right: the gate stands well outside.
        scaled = replace(self, low=float(lowest) - spread, scale=spread / 2)
        return replace(scaled, threshold=float(np.quantile(scaled.score(probabilities, features), QUANTILE)))

    def typicality(self, features: np.ndarray) -> np.ndarray:
        """Say how much nearer features, (n, width), are to one class than to clothes in general.

        This is the relative Mahalanobis distance (Ren et al. 2021, arXiv 2106.09022), negated, among discriminants.

        Returns:
            (n,) the higher, the more like one of the classes.
        """
        placed = features @ self.projection
        to_class = ((placed[:, np.newaxis] - self.class_centres) ** 2).sum(axis=2).min(axis=1)
        to_all = ((placed - self.centre) ** 2 / self.variance).sum(axis=1)
        return to_all - to_class

    def likeness(self, features: np.ndarray) -> np.ndarray:
        """Say whether features, (n, width), are of one of the classes: (n,) from 0 to 1."""
        distance = (self.typicality(features) - self.low) / self.scale
        return 1 / (1 + np.exp(-np.clip(distance, -50, 50)))

    def score(self, probabilities: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Join likeness and sureness into one score, their product: (n,) from 0 to 1."""
        return self.likeness(features) * sureness(probabilities)

    def to_json(self) -> dict[str, Any]:
        """Give all of it as plain lists and numbers."""
        return {field.name: _plain(np.asarray(getattr(self, field.name))) for field in fields(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Acceptance":
        """Rebuild what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: if something is missing, no number, or of a shape that does not fit.
        """
        arrays: dict[str, Any] = {field.name: np.array(document[field.name], np.float64) for field in fields(cls)}
        found = cls(**arrays)
        num_discriminants = len(found.centre)
        shapes = {
            "projection": (len(found.projection), num_discriminants),
            "class_centres": (len(found.class_centres), num_discriminants),
            "centre": (num_discriminants,),
            "variance": (num_discriminants,),
            **dict.fromkeys(("low", "scale", "threshold"), ()),
        }
        for name, shape in shapes.items():
            values = arrays[name]
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"{name} is of shape {values.shape}, expected finite numbers of shape {shape}")
        if not (found.scale > 0 and (found.variance > 0).all()):
            raise ValueError("scale or variance is not above 0")
        return replace(found, low=float(found.low), scale=float(found.scale), threshold=float(found.threshold))


def sureness(probabilities: np.ndarray) -> np.ndarray:
    """Say how sure probabilities, (n, classes), are: one minus their entropy as a share of the largest possible.

    Returns:
        (n,) from 0, where all are equal, to 1.
    """
    entropy = -(probabilities * np.log(probabilities + 1e-12)).sum(axis=1)
    return np.clip(1 - entropy / np.log(probabilities.shape[1]), 0, 1)


def _centres(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([values[labels == number].mean(axis=0) for number in range(labels.max() + 1)])


def _plain(values: np.ndarray) -> Any:
    return [_plain(row) for row in values] if values.ndim else float(f"{values:.{DIGITS}g}")
