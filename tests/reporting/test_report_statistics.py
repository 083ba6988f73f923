"""Thinning and statistics over seeds, against plain loops and scipy."""

import numpy as np
import pytest
from scipy import stats

from jtrust.reporting.statistics import (
    bucket_ends,
    interquartile_mean,
    newest_at,
    over_seeds,
    thin,
)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 30])
def test_the_interquartile_mean_is_scipys(count):
    values = np.random.default_rng(count).normal(size=(count, 7))
    np.testing.assert_allclose(
        interquartile_mean(values), stats.trim_mean(values, 0.25, axis=0), rtol=1e-12
    )


def test_an_interval_over_seeds_is_that_of_a_plain_loop():
    values = np.random.default_rng(0).normal(size=(6, 3))
    center, low, high = over_seeds(values, seed=5)
    draws = np.random.default_rng(5).integers(6, size=(500, 6))
    found = np.array([stats.trim_mean(values[d], 0.25, axis=0) for d in draws])
    np.testing.assert_allclose(center, stats.trim_mean(values, 0.25, axis=0))
    np.testing.assert_allclose(low, np.percentile(found, 2.5, axis=0))
    np.testing.assert_allclose(high, np.percentile(found, 97.5, axis=0))


def test_seeds_that_have_nothing_somewhere_count_for_nothing_there():
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])
    center, low, high = over_seeds(values)
    np.testing.assert_array_equal(center, [2.0, 2.0, np.nan])
    assert low[0] == 1.0 and high[0] == 3.0 and np.isnan([*low[1:], *high[1:]]).all()


@pytest.mark.parametrize("count", [3, 300, 2500])
def test_no_value_is_lost_by_thinning(count):
    random = np.random.default_rng(count)
    points = np.cumsum(random.integers(1, 50, count)).astype(float)
    values = random.normal(size=count)
    ends = bucket_ends([points], 100)
    assert len(ends) <= 100 and ends[-1] == points[-1]
    mean, low, high = thin(points, values, ends)
    for i, end in enumerate(ends):
        start = ends[i - 1] if i else -np.inf
        inside = values[(points > start) & (points <= end)]
        if len(inside):
            assert (low[i], high[i]) == (inside.min(), inside.max())
            assert mean[i] == pytest.approx(inside.mean())
        else:
            assert np.isnan(mean[i])
    assert np.nanmin(low) == values.min() and np.nanmax(high) == values.max()


def test_few_points_of_several_runs_are_buckets_of_their_own():
    ends = bucket_ends([np.array([1.0, 2.0]), np.array([2.0, 5.0])], 300)
    assert ends.tolist() == [1, 2, 5]
    assert thin(np.array([2.0, 5.0]), np.array([7.0, 8.0]), ends)[0].tolist()[1:] == [7, 8]


def test_the_newest_value_is_told_inside_a_run_alone():
    found = newest_at(np.array([1.0, 3.0]), np.array([10.0, 30.0]), np.array([0, 1, 2, 3, 4.0]))
    np.testing.assert_array_equal(found, [np.nan, 10, 10, 30, np.nan])
