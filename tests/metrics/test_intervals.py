"""Bootstrap confidence intervals against known intervals, by patient and with too few values."""

import numpy as np
import pytest

from lgg_jax.metrics.intervals import bootstrap_ci, pooled, summary


def test_interval_of_a_large_normal_sample():
    values = np.random.default_rng(1).normal(0.8, 0.1, size=400)
    low, high = bootstrap_ci(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.0005)
    assert high == pytest.approx(values.mean() + half, abs=0.0005)


def test_every_resample_of_two_values():
    """The means of two draws from {0, 1} are 0, 1/2 and 1 with probability 1/4, 1/2 and 1/4."""
    assert bootstrap_ci([0.0, 1.0], level=0.95) == [0, 1]
    assert bootstrap_ci([0.0, 1.0], level=0.40) == [0.5, 0.5]


def test_interval_depends_on_the_seed_and_not_on_the_order():
    values = [0.9, 0.8, 0.1, 0.7, 0.95]
    assert bootstrap_ci(values) == bootstrap_ci(values[::-1])
    assert bootstrap_ci(values, seed=1, resamples=50) != bootstrap_ci(values, seed=2, resamples=50)


def test_interval_of_equal_values_has_width_zero():
    assert bootstrap_ci([0.5] * 6) == [0.5, 0.5]
    low, high = bootstrap_ci([0.91] * 7)
    assert low <= high == pytest.approx(low)


def test_the_interval_of_a_seed_does_not_change_between_versions():
    """The metrics.json of earlier runs must stay comparable with another version of SciPy."""
    assert bootstrap_ci(np.sqrt(np.arange(23) / 22)) == pytest.approx([0.5466445676836028, 0.7587037932435591])


def test_patients_are_resampled_not_slices():
    """Two patients with 1000 equal slices each have the interval of two slices. Resampling slices would narrow it."""
    assert bootstrap_ci([0, 1000], counts=[1000, 1000]) == [0, 1]


def test_patients_are_weighted_by_their_number_of_slices():
    """The means of two draws from {0 of 10, 30 of 30} are 0, 30 / 40 and 1."""
    assert bootstrap_ci([0, 30], counts=[10, 30], level=0.40) == [0.75, 0.75]


def test_patients_without_slices_are_ignored():
    assert bootstrap_ci([1, 0, 3], counts=[2, 0, 4]) == bootstrap_ci([1, 3], counts=[2, 4])
    assert bootstrap_ci([1, 0], counts=[2, 0]) is None


def test_summary_by_hand():
    result = summary([0.2, 0.6, 0.7])
    low, high = result.pop("ci95")
    assert result == pytest.approx({"mean": 0.5, "median": 0.6, "std": np.sqrt((0.09 + 0.01 + 0.04) / 2), "n": 3})
    assert 0.2 <= low < 0.5 < high <= 0.7


@pytest.mark.parametrize("values, expected", [
    ([], {"mean": None, "median": None, "std": None, "ci95": None, "n": 0}),
    ([0.4], {"mean": 0.4, "median": 0.4, "std": None, "ci95": None, "n": 1}),
])
def test_summary_of_too_few_values(values, expected):
    assert summary(values) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_summary_refuses_values_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="1 of 3 values are not finite"):
        summary([0.5, bad, 0.6])


def test_pooled_mean_is_over_slices():
    result = pooled(sums=[1.0, 9.0], counts=[10, 10])
    assert result["mean"] == 0.5 and result["n"] == 20
    assert result["ci95"] == pytest.approx([0.1, 0.9])
    assert pooled([], []) == {"mean": None, "ci95": None, "n": 0}
    assert pooled([3.0], [4]) == {"mean": 0.75, "ci95": None, "n": 4}
