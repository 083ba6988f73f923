"""Curves thinned to what a screen shows, and statistics over seeds.

Interquartile means and bootstrap intervals over runs: Agarwal et al., 2021, arXiv:2108.13264.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 500


def bucket_ends(points: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Right ends of at most `most` buckets on a common axis, [B].

    Where there are no more distinct points than that, each is a bucket of its own.

    Args:
      points: those of each run, [N_i] each, in rising order.
      most: how many buckets a screen shows.
    """
    every = np.unique(np.concatenate([np.asarray(p, float) for p in points]))
    if len(every) <= most:
        return every
    return np.linspace(every[0], every[-1], most + 1)[1:]


def thin(
    points: np.ndarray, values: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, lowest, highest) of the values in each bucket, [B] each; NaN where there are none.

    No value is lost from sight: each lies between the lowest and the highest of its bucket.

    Args:
      points: where they are, [N], in rising order.
      values: [N], all finite.
      ends: right ends of the buckets, [B].
    """
    mean, low, high = (np.full(len(ends), np.nan) for _ in range(3))
    if not len(points):
        return mean, low, high
    bucket = np.minimum(np.searchsorted(ends, points, side="left"), len(ends) - 1)
    used, starts = np.unique(bucket, return_index=True)
    counts = np.diff(np.append(starts, len(points)))
    mean[used] = np.add.reduceat(values, starts) / counts
    low[used] = np.minimum.reduceat(values, starts)
    high[used] = np.maximum.reduceat(values, starts)
    return mean, low, high


def newest_at(points: np.ndarray, values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The newest value at each of `where`, [B]; NaN before the first point and behind the last.

    Args:
      points: where values are, [N], in rising order.
      values: [N].
      where: [B].
    """
    at = np.searchsorted(points, where, side="right") - 1
    inside = (at >= 0) & (where <= points[-1])
    return np.where(inside, values[np.maximum(at, 0)], np.nan)


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean of the middle half along `axis`, all values finite; of fewer than four the mean."""
    return stats.trim_mean(values, 0.25, axis=axis)


def over_seeds(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interquartile mean over runs and its 95 % percentile bootstrap interval, [B] each.

    Runs are drawn with replacement, the same ones for all points of a curve. NaN, where a run has
    nothing, counts for nothing; with one run the interval is NaN.

    Args:
      values: of each run, [runs, B].
      seed: of the draws, so that a report is the same when it is made again.
    """
    center, low, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    there = np.isfinite(values)
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    random = np.random.default_rng(seed)
    tail = 100 * (1 - CONFIDENCE) / 2
    for i, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(which.reshape(-1) == i)
        count = int(pattern.sum())
        if not count:
            continue
        found = values[pattern][:, columns]
        center[columns] = interquartile_mean(found)
        if count > 1:
            draws = random.integers(count, size=(RESAMPLES, count))
            resampled = interquartile_mean(found[draws], axis=1)
            low[columns], high[columns] = np.percentile(resampled, [tail, 100 - tail], axis=0)
    return center, low, high
