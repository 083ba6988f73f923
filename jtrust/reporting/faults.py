"""Faults that a run may have: each function finds one, and says it with its numbers.

Each takes a run that has rows, and returns a sentence without its full stop, or None. The
thresholds stand beside them; `rules.py` says them in words.
"""

from __future__ import annotations

import math

import numpy as np

from jtrust.reporting.panels import kl_limit, refused
from jtrust.reporting.sources import Run
from jtrust.reporting.tail import to_float

# Of a Gaussian, entropy per dimension is log(deviation) + this.
_HALF_LOG_2_PI_E = 0.5 * math.log(2 * math.pi * math.e)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _tail(values: np.ndarray, share: float, least: int) -> np.ndarray:
    """The last `share` of the finite values, of `least` or more; [] where there are fewer."""
    values = _finite(values)
    count = max(least, math.ceil(share * len(values)))
    return values[-count:] if len(values) >= least else values[:0]


# The policy.

NO_FLOOR, AT_FLOOR, FEW_CHOICES = 0.01, 1.1, 0.01


def collapsed(run: Run) -> str | None:
    entropy = _finite(run.column("policy/entropy"))
    action = run.config.get("action")
    action = action if isinstance(action, dict) else {}
    kind, size = action.get("kind"), action.get("size")
    if not len(entropy):
        return None
    if kind == "box" and type(size) is int and 0 < size < 10**6:
        network = run.config.get("network")
        floor = to_float(network.get("min_std") if isinstance(network, dict) else None)
        floor = floor if floor > 0 else 0.0
        deviation = np.exp(entropy / size - _HALF_LOG_2_PI_E)
        if deviation[-1] > (AT_FLOOR * floor or NO_FLOOR):
            return None
        return (f"the deviation of actions is {deviation[-1]:.3g} of half their range, from "
                f"{deviation[0]:.3g} at the start" + f"; its floor is {floor:g}" * bool(floor))
    if kind in ("discrete", "bins") and entropy[-1] <= FEW_CHOICES * entropy[0]:
        return (f"entropy is {entropy[-1]:.3g} nats, from {entropy[0]:.3g} at the start: one "
                "action is almost certain")
    return None


LAST_UPDATES, MOST_REFUSED = 50, 0.9


def all_refused(run: Run) -> str | None:
    last = refused(run)[kl_limit(run) != 0]  # with a limit of 0 no update is tried
    last = _finite(last)[-LAST_UPDATES:]
    if len(last) < 10 or last.mean() < MOST_REFUSED:
        return None
    return f"{int(last.sum())} of the last {len(last)} updates were refused"


TINY_STEP = 0.1


def cut(run: Run) -> str | None:
    scale = run.column("policy/step_scale")[run.column("policy/accepted") == 1]
    last = _tail(scale, 0.0, LAST_UPDATES)[-LAST_UPDATES:]
    if not len(last) or np.median(last) >= TINY_STEP:
        return None
    return (f"half of the last {len(last)} accepted updates took {np.median(last):.2g} of the "
            "full step or less")


ABOVE_LIMIT = 1.01


def beyond(run: Run) -> str | None:
    kl, limit = run.column("policy/kl"), kl_limit(run)
    with np.errstate(invalid="ignore"):
        over = (kl > ABOVE_LIMIT * limit) & (run.column("policy/accepted") == 1)
    if not over.any():
        return None
    worst = int(np.nanargmax(np.where(over, kl - limit, np.nan)))
    return (f"accepted updates beyond it: {int(over.sum()):,}; at iteration "
            f"{run.column('iteration')[worst]:.0f} the KL is {kl[worst]:.3g} of {limit[worst]:.3g}")


FACTOR = 3.0


def model(run: Run) -> str | None:
    kl, told = run.column("policy/kl"), run.column("policy/kl_predicted")
    good = (kl > 0) & (told > 0)
    last = (kl[good] / told[good])[-LAST_UPDATES:]
    if len(last) < 10:
        return None
    ratio = float(np.median(last))
    if 1 / FACTOR <= ratio <= FACTOR:
        return None
    return (f"over the last {len(last)} updates the KL was {ratio:.2g} times what the quadratic "
            "model predicted (median)")


DRIFT_SHARE = 0.1


def drift(run: Run) -> str | None:
    drift, limit = run.column("observation/drift_kl")[1:], kl_limit(run)[1:]
    highest = _finite(limit)
    if not len(highest) or not len(_finite(drift)) or highest.max() <= 0:
        return None
    share = drift / highest.max()  # limits close to 0 are no measure of what moves a policy
    if not np.nanmax(share) > DRIFT_SHARE:
        return None
    at = int(np.nanargmax(share))
    return (f"the normaliser moved the policy by a KL of {drift[at]:.3g} at iteration "
            f"{run.column('iteration')[at + 1]:.0f}, {share[at]:.0%} of the limit")


NO_SIGNAL = 0.5


def no_signal(run: Run) -> str | None:
    told = _finite(run.column("policy/kl_limit"))
    share = float(np.mean(told == 0)) if len(told) >= 10 else 0.0
    if share < NO_SIGNAL:
        return None
    return f"in {share:.0%} of the iterations the KL limit was 0, and no update was made"


# Values.

EXPLAINED = 0.1


def explain_nothing(run: Run) -> str | None:
    last = _tail(run.column("value/explained_variance"), 0.2, 10)
    if not len(last) or np.median(last) >= EXPLAINED:
        return None
    return (f"over the last {len(last)} iterations values explained {np.median(last):.2f} of the "
            "variance of their targets (median)")


# The machine.


def _sum(run: Run, *names: str) -> float:
    return float(sum(np.nansum(run.column(name)) for name in names))


def nonfinite(run: Run) -> str | None:
    count = _sum(run, "environment/nonfinite")
    if not count:
        return None
    share = count / max(run.column("step")[-1], 1.0)
    return f"the simulator gave NaN or infinity at {count:,.0f} steps, {share:.2g} of all"


def overflow(run: Run) -> str | None:
    count = _sum(run, "environment/overflow")
    return f"the simulator had no room for all contacts at {count:,.0f} steps" if count else None


def skipped(run: Run) -> str | None:
    steps = _sum(run, "policy/skipped", "value/skipped")
    batches = _sum(run, "observation/skipped", "value/targets_skipped")
    parts = [f"{steps:,.0f} gradient steps were left out"] * bool(steps)
    parts += [f"{batches:,.0f} batches were left out of a normaliser"] * bool(batches)
    return "; ".join(parts) or None


SLOWER = 0.5


def slower(run: Run) -> str | None:
    speed = _finite(run.column("time/steps_per_second"))
    if len(speed) < 50:
        return None
    now, usual = np.median(speed[-len(speed) // 10:]), np.median(speed)
    if now >= SLOWER * usual:
        return None
    return f"{now:,.0f} steps per second at the end, {usual:,.0f} over the run (medians)"


# The return.

_TENTHS, FEWEST, LOST, MOVED = 10, 50, 0.5, 0.05


def _tenths(run: Run) -> np.ndarray | None:
    """Mean return of each tenth of a run, [10]; None where it is too short."""
    told = run.column("evaluation/return")
    told = told if len(_finite(told)) >= FEWEST else run.column("episode/return")
    told = _finite(told)
    if len(told) < FEWEST:
        return None
    return np.array([part.mean() for part in np.array_split(told, _TENTHS)])


def never_moved(run: Run) -> str | None:
    tenths = _tenths(run)
    if tenths is None or not _still(tenths):
        return None
    return (f"{tenths[0]:.4g} in the first tenth of the run, {tenths.max():.4g} in its best")


def _still(tenths: np.ndarray) -> bool:
    return bool(tenths.max() - tenths[0] <= MOVED * max(abs(tenths[0]), 1e-12))


def fell(run: Run) -> str | None:
    tenths = _tenths(run)
    if tenths is None:
        return None
    best = int(tenths.argmax())
    lowest = tenths[: best + 1].min()
    gained, lost = tenths[best] - lowest, tenths[best] - tenths[-1]
    if best == 0:  # it never was better than at the start
        gained = abs(tenths[0])
    if not lost > max(LOST * gained, MOVED * abs(tenths[best])):
        return None
    return (f"{tenths[best]:.4g} in its best tenth ({best + 1} of {_TENTHS}), {tenths[-1]:.4g} "
            "in the last")
