"""Statistics of repeated runs and of paired answers."""

import pytest

from fmnist.evaluation.statistics import Summary, mcnemar_p_value, paired_difference, summarize


def test_summary_of_values():
    summary = summarize([1, 2, 3, 4])
    assert (summary.n, summary.mean) == (4, 2.5)
    assert summary.sd == pytest.approx(1.2909944)
    # 3.182446 is the 97.5 % quantile of Student's t for 3 degrees of freedom, from a table.
    assert summary.interval_95 == pytest.approx((2.5 - 3.182446 * 1.2909944 / 2, 2.5 + 3.182446 * 1.2909944 / 2))


def test_a_single_value_has_no_spread():
    assert summarize([0.9]) == Summary(n=1, mean=0.9, sd=None, interval_95=None)


def test_equal_values_have_no_spread():
    assert summarize([0.1] * 3) == Summary(n=3, mean=pytest.approx(0.1), sd=0, interval_95=pytest.approx((0.1, 0.1)))


def test_pairs_are_compared_one_by_one():
    """What the pairs have in common, here a large spread, does not count."""
    summary = paired_difference([0.1, 0.5, 0.9], [0.2, 0.6, 1.0])
    assert (summary.n, summary.mean) == (3, pytest.approx(0.1))
    assert summary.sd == pytest.approx(0, abs=1e-12)


def test_pairs_need_two_values_each():
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([0.1, 0.2], [0.1])


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        (0, 0, 1),
        (5, 5, 1),
        (0, 1, 1),
        (2, 10, 2 * (1 + 12 + 66) / 2**12),
        (10, 2, 2 * (1 + 12 + 66) / 2**12),
        (0, 20, 2 / 2**20),
    ],
)
def test_mcnemars_exact_test(only_first, only_second, expected):
    assert mcnemar_p_value(only_first, only_second) == pytest.approx(expected)
