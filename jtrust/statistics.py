"""Statistics over tasks and seeds (Agarwal et al., 2021, arXiv:2108.13264).

Scores are {task: [returns of its seeds]}, normalised where tasks are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Scores = Mapping[str, Any]  # of arrays, or sequences, of numbers


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all runs of all tasks."""
    return float(stats.trim_mean(np.concatenate([np.asarray(x) for x in scores.values()]), 0.25))


def bootstrap_interval(
    statistic: Callable[..., float], *scores: Scores, resamples: int = 2000, seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic of one or more sets of scores, each stratified by task.

    Runs are drawn with replacement within each task, so that no resample lacks one.
    """
    random = np.random.default_rng(seed)

    def resample(one: Scores) -> Scores:
        return {t: random.choice(np.asarray(x), len(x)) for t, x in one.items()}

    found = [statistic(*(resample(one) for one in scores)) for _ in range(resamples)]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """How often a run of ours beats one of theirs on the same task, averaged over tasks.

    A tie counts half, as in the statistic of Mann and Whitney.
    """
    each = []
    for task in ours:
        a, b = np.asarray(ours[task])[:, None], np.asarray(theirs[task])[None]
        each.append(np.mean((a > b) + 0.5 * (a == b)))
    return float(np.mean(each))


def performance_profile(scores: Scores, thresholds: Sequence[float]) -> np.ndarray:
    """Share of runs above each threshold, every task counting alike, [thresholds]."""
    levels = np.asarray(thresholds)
    return np.mean([
        np.mean(np.asarray(x)[:, None] > levels, axis=0) for x in scores.values()
    ], axis=0)


def mean_over_tasks(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of one difference per task, and the 95 % interval of it by Student's t, over tasks."""
    found = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return float(np.mean(differences)), float(found.low), float(found.high)


def at(points: Sequence[float], values: Sequence[float], where: float) -> float:
    """A curve's newest value at `where`: that of the last point up to there; NaN before the first.

    What is not measured yet counts for nothing, as for somebody who would stop there.
    """
    there = int(np.searchsorted(points, where, side="right"))
    return float(values[there - 1]) if there else float("nan")
