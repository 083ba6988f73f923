"""The numbers that panels draw: one curve for each setting, thinned, with a band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jtrust.reporting.panels import Panel, seconds
from jtrust.reporting.settings import Setting
from jtrust.reporting.statistics import bucket_ends, newest_at, over_seeds, thin

_DIGITS = 5
# A chart is some 500 pixels wide; beyond a dozen settings, lines tell less and bytes count.
_BUCKETS, _FEWER_BUCKETS, _MANY = 300, 120, 12


def buckets_for(settings: int) -> int:
    """How many points a curve has at most."""
    return _BUCKETS if settings <= _MANY else _FEWER_BUCKETS


def curves(panel: Panel, settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Curves of a panel, [] where no run has what it shows.

    Returns:
      one {"s": index of the setting, "x", "y", "lo", "hi", "ref"} each, lists of one length of
      numbers or None; "lo", "hi" and "ref" are None where the curve has no band or limit.
    """
    found = []
    for i, setting in enumerate(settings):
        curve = _curve(panel, setting, buckets_for(len(settings)))
        if curve is not None:
            found.append({"s": i, **curve})
    if not panel.always and not any(any(curve["y"]) for curve in found):
        return []
    return found


def _curve(panel: Panel, setting: Setting, most: int) -> dict[str, Any] | None:
    points, values, limits = [], [], []
    for run in setting.runs:
        found = panel.values(run)
        good = np.isfinite(found) & ((found > 0) | (not panel.log))
        if not good.any():
            continue
        axis = seconds(run) if panel.against == "seconds" else run.column("step")
        points.append(axis[good])
        values.append(found[good])
        limits.append(None if panel.limit is None else panel.limit(run)[good])
    if not points:
        return None
    if panel.against == "seconds" and len(points) > 1:  # no two runs have rows at the same times
        ends = np.linspace(min(p[0] for p in points), max(p[-1] for p in points), most)
        center = np.stack([newest_at(p, v, ends) for p, v in zip(points, values, strict=True)])
        low = high = center
    else:
        ends = bucket_ends(points, most)
        thinned = [thin(p, v, ends) for p, v in zip(points, values, strict=True)]
        center, low, high = (np.stack(x) for x in zip(*thinned, strict=True))
    y, lo, hi = _together(panel, center, low, high)
    ref = _limit(points, limits, ends)
    kept = np.isfinite(y)
    return {
        "x": _plain(ends[kept]), "y": _plain(y[kept]),
        # A band without a width is none.
        **({"lo": _plain(lo[kept]), "hi": _plain(hi[kept])} if np.any(hi[kept] > lo[kept])
           else {"lo": None, "hi": None}),
        "ref": None if ref is None else _plain(ref[kept]),
    }


def _together(
    panel: Panel, center: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(middle, lower, upper) over the runs of a setting, [B] each, of arrays [runs, B]."""
    if panel.band == "seeds" and len(center) > 1:
        return over_seeds(center)
    some = np.isfinite(center).any(axis=0)
    y, lo, hi = (np.full(center.shape[1], np.nan) for _ in range(3))
    y[some] = np.nanmedian(center[:, some], axis=0)
    lo[some], hi[some] = np.nanmin(low[:, some], axis=0), np.nanmax(high[:, some], axis=0)
    return y, lo, hi


def _limit(
    points: Sequence[np.ndarray], limits: Sequence[np.ndarray | None], ends: np.ndarray
) -> np.ndarray | None:
    """The limit in each bucket, [B]: its mean, of the run where that is lowest; or None."""
    found = np.full(len(ends), np.nan)
    for p, limit in zip(points, limits, strict=True):
        if limit is not None and (good := np.isfinite(limit)).any():
            found = np.fmin(found, thin(p[good], limit[good], ends)[0])
    return found if np.isfinite(found).any() else None


def _plain(values: np.ndarray) -> list[float | int | None]:
    """JSON's numbers, of as many digits as a chart shows."""
    return [plain_number(x) for x in values.tolist()]


def plain_number(value: float, digits: int = _DIGITS) -> float | int | None:
    """A number of few digits; steps, which are whole, keep all of theirs."""
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.{digits}g}")
