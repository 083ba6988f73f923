"""Statistics of learning curves, against scipy and against what can be counted by hand."""

import numpy as np
import pytest
from scipy import stats

from jtrust import statistics


def test_the_interquartile_mean_leaves_out_both_quarters():
    scores = {"a": [100.0, 2.0, 3.0, 4.0], "b": [5.0, 6.0, 7.0, -50.0]}
    assert statistics.interquartile_mean(scores) == pytest.approx(np.mean([3.0, 4.0, 5.0, 6.0]))


def test_improvement_is_the_statistic_of_mann_and_whitney():
    random = np.random.default_rng(0)
    ours = {t: np.round(random.normal(1.0, 2.0, 7), 0) for t in "abc"}
    theirs = {t: np.round(random.normal(0.0, 2.0, 5), 0) for t in "abc"}
    expected = np.mean([
        stats.mannwhitneyu(ours[t], theirs[t]).statistic / (7 * 5) for t in "abc"
    ])
    assert statistics.probability_of_improvement(ours, theirs) == pytest.approx(expected)


def test_the_interval_agrees_with_scipys_bootstrap():
    sample = np.random.default_rng(1).normal(3.0, 1.0, 40)
    ours = statistics.bootstrap_interval(lambda s: float(np.mean(s["a"])), {"a": sample})
    expected = stats.bootstrap(
        (sample,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose(ours, expected, atol=0.03)


def test_the_interval_is_stratified():
    """Two tasks whose runs all agree leave nothing to chance, however far apart the tasks are."""
    scores = {"a": [1.0] * 5, "b": [9.0] * 5}
    assert statistics.bootstrap_interval(
        lambda s: float(np.mean(np.concatenate(list(s.values())))), scores
    ) == (5.0, 5.0)


def test_profiles_count_tasks_alike():
    scores = {"a": [0.2, 0.8], "b": [0.9] * 6}
    np.testing.assert_allclose(
        statistics.performance_profile(scores, [0.0, 0.5, 0.85, 1.0]), [1.0, 0.75, 0.5, 0.0]
    )
