"""The rejection rule: decides whether a prediction is confident enough to accept.

A softmax assigns a class to any input, so its probabilities cannot express "none of these". The features before it
can: linear discriminants (Fisher 1936) map each class to a compact cluster, and inputs of other kinds fall between the
clusters. The confidence combines both: how typical the features are, and how certain the probabilities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from fmnist.inference.prediction import ClassProbability
from fmnist.runs.schemas import RejectionRuleRecord

THRESHOLD_QUANTILE = 0.06
"""Share of the validation images that are rejected. Chosen on development photos (docs/log.md)."""
SHRINKAGE = 0.1
"""Weight of the mean variance in the common covariance of the classes, so that it can be inverted."""
LOWEST_QUANTILE = 0.001
"""Quantile of the validation images that counts as the least typical one; the outliers below it are ignored."""
SIGNIFICANT_DIGITS = 6
"""Precision of the numbers in a manifest, which people read too."""


Outputs = Mapping[str, np.ndarray]
"""Names of outputs of a graph to their values."""


@dataclass(frozen=True)
class RejectionRule:
    """The class clusters in the feature space of a network, and the confidence that a prediction needs."""

    projection: np.ndarray
    """(width, classes - 1) float64, from features to discriminants with a standard deviation of 1 within each class."""
    class_means: np.ndarray
    """(classes, classes - 1) float64, mean discriminants of each class."""
    mean: np.ndarray
    """(classes - 1,) float64, mean discriminants of all classes together."""
    variance: np.ndarray
    """(classes - 1,) float64, their variance."""
    midpoint: float = 0.0
    """Relative Mahalanobis score at which the in-distribution probability is 0.5."""
    scale: float = 1.0
    """Increase of that score which takes the in-distribution probability from 0.5 to 0.73."""
    threshold: float = 0.0
    """Lowest confidence that is accepted."""

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "RejectionRule":
        """Fit the class clusters.

        Args:
            features: (n, width), inputs of the network's last layer for training images.
            labels: (n,) their classes, at least two different ones.

        Returns:
            A rule whose midpoint, scale and threshold are still to be set by `calibrated`.
        """
        classes, labels = np.unique(labels, return_inverse=True)
        means = _class_means(features, labels)
        within = np.cov((features - means[labels]).T)
        mean_variance = np.trace(within) / len(within) + 1e-12
        within = (1 - SHRINKAGE) * within + SHRINKAGE * mean_variance * np.eye(len(within))
        whitening = np.linalg.inv(np.linalg.cholesky(within)).T
        directions = np.linalg.svd((means - means.mean(axis=0)) @ whitening, full_matrices=False)[2]
        projection = whitening @ directions[: len(classes) - 1].T
        discriminants = features @ projection
        projection = projection / ((discriminants - _class_means(discriminants, labels)[labels]).std(axis=0) + 1e-12)
        discriminants = features @ projection
        return cls(
            projection,
            _class_means(discriminants, labels),
            discriminants.mean(axis=0),
            discriminants.var(axis=0) + 1e-12,
        )

    def calibrated(self, outputs: Outputs) -> "RejectionRule":
        """Return a copy with midpoint, scale and threshold set by validation images.

        Args:
            outputs: as for `confidence`.
        """
        scores = self.relative_mahalanobis(outputs["features"])
        lowest, lower, upper = np.quantile(scores, [LOWEST_QUANTILE, 0.25, 0.75])
        spread = max(float(upper - lower), 1e-6)
        # Photos are less typical than studio images even when classified correctly, so the midpoint is lenient.
        scaled = replace(self, midpoint=float(lowest) - spread, scale=spread / 2)
        confidence = scaled.confidence(outputs)
        return replace(scaled, threshold=float(np.quantile(confidence, THRESHOLD_QUANTILE)))

    def relative_mahalanobis(self, features: np.ndarray) -> np.ndarray:
        """Compute how much closer features are to one class than to all classes together.

        This is the negated relative Mahalanobis distance (Ren et al. 2021, arXiv 2106.09022) between discriminants.

        Args:
            features: (n, width).

        Returns:
            (n,) scores; higher is more typical of a class.
        """
        discriminants = features @ self.projection
        to_class = ((discriminants[:, np.newaxis] - self.class_means) ** 2).sum(axis=2).min(axis=1)
        to_all = ((discriminants - self.mean) ** 2 / self.variance).sum(axis=1)
        return to_all - to_class

    def in_distribution_probability(self, features: np.ndarray) -> np.ndarray:
        """Compute how likely features, (n, width), belong to any of the classes: (n,) from 0 to 1."""
        logits = (self.relative_mahalanobis(features) - self.midpoint) / self.scale
        return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))

    def confidence(self, outputs: Outputs) -> np.ndarray:
        """Compute the in-distribution probability times `entropy_confidence`, and the probability of any class.

        Args:
            outputs: of a graph: `probabilities`, (n, classes), calibrated; `features`, (n, width); perhaps
                `none_probability`, (n, 1).

        Returns:
            (n,) from 0 to 1.
        """
        in_distribution = self.in_distribution_probability(outputs["features"])
        if "none_probability" in outputs:
            in_distribution = in_distribution * (1 - outputs["none_probability"][:, 0])
        return in_distribution * entropy_confidence(outputs["probabilities"])

    def describe_low_confidence(self, outputs: Outputs, top: Sequence[ClassProbability]) -> str:
        """Name the lower of the two factors of the confidence in one prediction.

        Args:
            outputs: as for `confidence`, of one image.
            top: the classes by falling probability.
        """
        (in_distribution,) = self.in_distribution_probability(outputs["features"])
        (certainty,) = entropy_confidence(outputs["probabilities"])
        if in_distribution < certainty:
            return f"not like any of the {len(top)} classes"
        return f"between {top[0].label} and {top[1].label}"

    def to_record(self) -> RejectionRuleRecord:
        """Return the rule as the record of a manifest, rounded to `SIGNIFICANT_DIGITS`."""
        return RejectionRuleRecord(**{field.name: _rounded(getattr(self, field.name)) for field in fields(self)})

    @classmethod
    def from_record(cls, record: RejectionRuleRecord) -> "RejectionRule":
        """Return the rule that a manifest records."""
        names = ("projection", "class_means", "mean", "variance")
        arrays = {name: np.array(getattr(record, name), np.float64) for name in names}
        return cls(**arrays, midpoint=record.midpoint, scale=record.scale, threshold=record.threshold)


def entropy_confidence(probabilities: np.ndarray) -> np.ndarray:
    """Compute how certain probabilities, (n, classes), are: 1 minus their entropy relative to the largest possible.

    Returns:
        (n,) from 0, where all classes are equally probable, to 1.
    """
    entropy = -(probabilities * np.log(probabilities + 1e-12)).sum(axis=1)
    return np.clip(1 - entropy / np.log(probabilities.shape[1]), 0, 1)


def _class_means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([values[labels == label].mean(axis=0) for label in range(labels.max() + 1)])


def _rounded(values: Any) -> Any:
    if np.ndim(values):
        return [_rounded(row) for row in values]
    return float(f"{values:.{SIGNIFICANT_DIGITS}g}")
