"""Statistics of repeated runs and of paired answers: mean, spread, intervals, tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from fmnist.metrics import CONFIDENCE_LEVEL


@dataclass(frozen=True)
class Summary:
    """What repeated measurements say about their mean."""

    n: int
    """Number of values."""
    mean: float
    sd: float | None
    """Standard deviation of the sample, with n - 1 in the denominator. None for a single value."""
    interval_95: tuple[float, float] | None
    """95 % confidence interval of the mean by Student's t distribution. None for a single value."""


def summarize(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and t interval of independent measurements.

    Args:
        values: at least one, for instance the accuracies of runs that differ in their seed alone.
    """
    n, mean = len(values), fmean(values)
    if n == 1:
        return Summary(n, mean, None, None)
    from scipy.stats import t

    sd = stdev(values)
    half = float(t.ppf((1 + CONFIDENCE_LEVEL) / 2, n - 1)) * sd / sqrt(n)
    return Summary(n, mean, sd, (mean - half, mean + half))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Summary:
    """Summarize the differences b - a of paired measurements.

    Args:
        a: at least one value, for instance the accuracies of runs of one configuration.
        b: the values that belong to those of `a`, in the same order: of runs of another configuration, seed by seed.
    """
    return summarize([second - first for first, second in zip(a, b, strict=True)])


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test for two classifiers on the same images.

    Args:
        only_first: images that only the first classifier has right.
        only_second: images that only the second classifier has right.

    Returns:
        How probable a difference of at least this size is if both are right equally often, from 0 to 1. It is 1 if
        the classifiers are right about the same images.
    """
    from scipy.stats import binomtest

    num_images = only_first + only_second
    return float(binomtest(only_first, num_images).pvalue) if num_images else 1.0
