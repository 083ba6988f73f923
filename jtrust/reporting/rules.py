"""What looks wrong in a run, by rules: each with its threshold, its sentence and what to try.

The page shows all of them; docs/report.md lists them as `to_markdown` does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from jtrust.reporting.panels import kl_limit, refused
from jtrust.reporting.sources import Run
from jtrust.reporting.tail import to_float

# Of a Gaussian, entropy per dimension is log(deviation) + this.
_HALF_LOG_2_PI_E = 0.5 * math.log(2 * math.pi * math.e)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One thing that may be wrong.

    Attributes:
      name: what the page calls it.
      threshold: when it speaks, in words.
      advice: what to try.
      check: of a run, the sentence with its numbers; None where nothing is wrong.
    """

    name: str
    threshold: str
    advice: str
    check: Callable[[Run], str | None]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one rule says of one run."""

    rule: Rule
    run: Run
    sentence: str


def findings(runs: Sequence[Run]) -> list[Finding]:
    """What all rules say of all runs, rule by rule."""
    return [
        Finding(rule, run, sentence)
        for rule in RULES for run in runs
        if run.tail.rows and (sentence := rule.check(run)) is not None
    ]


def to_markdown() -> str:
    """The rules as a table of Markdown."""
    lines = ["| rule | speaks when | what to try |", "| --- | --- | --- |"]
    lines += [f"| {rule.name} | {rule.threshold} | {rule.advice} |" for rule in RULES]
    return "\n".join(lines) + "\n"


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _tail(values: np.ndarray, share: float, least: int) -> np.ndarray:
    """The last `share` of the finite values, of `least` or more; [] where there are fewer."""
    values = _finite(values)
    count = max(least, math.ceil(share * len(values)))
    return values[-count:] if len(values) >= least else values[:0]


# The policy.

_NO_FLOOR, _AT_FLOOR, _FEW_CHOICES = 0.01, 1.1, 0.01


def _collapsed(run: Run) -> str | None:
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
        if deviation[-1] > (_AT_FLOOR * floor or _NO_FLOOR):
            return None
        return (f"the deviation of actions is {deviation[-1]:.3g} of half their range, from "
                f"{deviation[0]:.3g} at the start" + f"; its floor is {floor:g}" * bool(floor))
    if kind in ("discrete", "bins") and entropy[-1] <= _FEW_CHOICES * entropy[0]:
        return (f"entropy is {entropy[-1]:.3g} nats, from {entropy[0]:.3g} at the start: one "
                "action is almost certain")
    return None


_LAST_UPDATES, _MOST_REFUSED = 50, 0.9


def _all_refused(run: Run) -> str | None:
    last = refused(run)[kl_limit(run) != 0]  # with a limit of 0 no update is tried
    last = _finite(last)[-_LAST_UPDATES:]
    if len(last) < 10 or last.mean() < _MOST_REFUSED:
        return None
    return f"{int(last.sum())} of the last {len(last)} updates were refused"


_TINY_STEP = 0.1


def _cut(run: Run) -> str | None:
    scale = run.column("policy/step_scale")[run.column("policy/accepted") == 1]
    last = _tail(scale, 0.0, _LAST_UPDATES)[-_LAST_UPDATES:]
    if not len(last) or np.median(last) >= _TINY_STEP:
        return None
    return (f"half of the last {len(last)} accepted updates took {np.median(last):.2g} of the "
            "full step or less")


_ABOVE_LIMIT = 1.01


def _beyond(run: Run) -> str | None:
    kl, limit = run.column("policy/kl"), kl_limit(run)
    with np.errstate(invalid="ignore"):
        over = (kl > _ABOVE_LIMIT * limit) & (run.column("policy/accepted") == 1)
    if not over.any():
        return None
    worst = int(np.nanargmax(np.where(over, kl - limit, np.nan)))
    return (f"accepted updates beyond it: {int(over.sum()):,}; at iteration "
            f"{run.column('iteration')[worst]:.0f} the KL is {kl[worst]:.3g} of {limit[worst]:.3g}")


_FACTOR = 3.0


def _model(run: Run) -> str | None:
    kl, told = run.column("policy/kl"), run.column("policy/kl_predicted")
    good = (kl > 0) & (told > 0)
    last = (kl[good] / told[good])[-_LAST_UPDATES:]
    if len(last) < 10:
        return None
    ratio = float(np.median(last))
    if 1 / _FACTOR <= ratio <= _FACTOR:
        return None
    return (f"over the last {len(last)} updates the KL was {ratio:.2g} times what the quadratic "
            "model predicted (median)")


_DRIFT_SHARE = 0.1


def _drift(run: Run) -> str | None:
    drift, limit = run.column("observation/drift_kl")[1:], kl_limit(run)[1:]
    highest = _finite(limit)
    if not len(highest) or not len(_finite(drift)) or highest.max() <= 0:
        return None
    share = drift / highest.max()  # limits close to 0 are no measure of what moves a policy
    if not np.nanmax(share) > _DRIFT_SHARE:
        return None
    at = int(np.nanargmax(share))
    return (f"the normaliser moved the policy by a KL of {drift[at]:.3g} at iteration "
            f"{run.column('iteration')[at + 1]:.0f}, {share[at]:.0%} of the limit")


_NO_SIGNAL = 0.5


def _no_signal(run: Run) -> str | None:
    told = _finite(run.column("policy/kl_limit"))
    share = float(np.mean(told == 0)) if len(told) >= 10 else 0.0
    if share < _NO_SIGNAL:
        return None
    return f"in {share:.0%} of the iterations the KL limit was 0, and no update was made"


# Values.

_EXPLAINED = 0.1


def _explain_nothing(run: Run) -> str | None:
    last = _tail(run.column("value/explained_variance"), 0.2, 10)
    if not len(last) or np.median(last) >= _EXPLAINED:
        return None
    return (f"over the last {len(last)} iterations values explained {np.median(last):.2f} of the "
            "variance of their targets (median)")


# The machine.


def _sum(run: Run, *names: str) -> float:
    return float(sum(np.nansum(run.column(name)) for name in names))


def _nonfinite(run: Run) -> str | None:
    count = _sum(run, "environment/nonfinite")
    if not count:
        return None
    share = count / max(run.column("step")[-1], 1.0)
    return f"the simulator gave NaN or infinity at {count:,.0f} steps, {share:.2g} of all"


def _overflow(run: Run) -> str | None:
    count = _sum(run, "environment/overflow")
    return f"the simulator had no room for all contacts at {count:,.0f} steps" if count else None


def _skipped(run: Run) -> str | None:
    steps = _sum(run, "policy/skipped", "value/skipped")
    batches = _sum(run, "observation/skipped", "value/targets_skipped")
    parts = [f"{steps:,.0f} gradient steps were left out"] * bool(steps)
    parts += [f"{batches:,.0f} batches were left out of a normaliser"] * bool(batches)
    return "; ".join(parts) or None


_SLOWER = 0.5


def _slower(run: Run) -> str | None:
    speed = _finite(run.column("time/steps_per_second"))
    if len(speed) < 50:
        return None
    now, usual = np.median(speed[-len(speed) // 10:]), np.median(speed)
    if now >= _SLOWER * usual:
        return None
    return f"{now:,.0f} steps per second at the end, {usual:,.0f} over the run (medians)"


# The return.

_TENTHS, _FEWEST, _LOST, _MOVED = 10, 50, 0.5, 0.05


def _tenths(run: Run) -> np.ndarray | None:
    """Mean return of each tenth of a run, [10]; None where it is too short."""
    told = run.column("evaluation/return")
    told = told if len(_finite(told)) >= _FEWEST else run.column("episode/return")
    told = _finite(told)
    if len(told) < _FEWEST:
        return None
    return np.array([part.mean() for part in np.array_split(told, _TENTHS)])


def _never_moved(run: Run) -> str | None:
    tenths = _tenths(run)
    if tenths is None or not _still(tenths):
        return None
    return (f"{tenths[0]:.4g} in the first tenth of the run, {tenths.max():.4g} in its best")


def _still(tenths: np.ndarray) -> bool:
    return bool(tenths.max() - tenths[0] <= _MOVED * max(abs(tenths[0]), 1e-12))


def _fell(run: Run) -> str | None:
    tenths = _tenths(run)
    if tenths is None:
        return None
    best = int(tenths.argmax())
    lowest = tenths[: best + 1].min()
    gained, lost = tenths[best] - lowest, tenths[best] - tenths[-1]
    if best == 0:  # it never was better than at the start
        gained = abs(tenths[0])
    if not lost > max(_LOST * gained, _MOVED * abs(tenths[best])):
        return None
    return (f"{tenths[best]:.4g} in its best tenth ({best + 1} of {_TENTHS}), {tenths[-1]:.4g} "
            "in the last")


RULES = (
    Rule("Return never moved",
         f"no tenth of the run has a mean return more than {_MOVED:.0%} above the first tenth's "
         f"(of {_FEWEST} iterations with a return or more)",
         "check the reward; a larger `max_kl`, more environments, a longer run; "
         "a run that starts from a trained policy may be right as it is", _never_moved),
    Rule("Return fell",
         f"the last tenth's mean return lost more than {_LOST:.0%} of what the best tenth had "
         f"gained, and {_MOVED:.0%} of that",
         "a smaller `max_kl`, more environments; take the policy of an earlier checkpoint "
         "(`--step`)", _fell),
    Rule("Rewards tell nothing",
         f"`policy/kl_limit` is 0 in at least {_NO_SIGNAL:.0%} of the iterations",
         "the reward is always the same and no episode failed; check it, or start states nearer "
         "to what pays", _no_signal),
    Rule("Updates refused",
         f"at least {_MOST_REFUSED:.0%} of the last {_LAST_UPDATES} updates that might move the "
         "policy were refused",
         "look at skipped steps and at the values; more `damping`, a larger rollout, or the task "
         "is solved", _all_refused),
    Rule("Steps cut short",
         f"the median step of the last {_LAST_UPDATES} accepted updates is below {_TINY_STEP:g} "
         "of the full one",
         "more `damping` or `cg_iterations`; with PPO a lower learning rate", _cut),
    Rule("Trust region exceeded",
         f"an accepted update's KL is more than {_ABOVE_LIMIT:g} times its limit",
         "this should not happen with jtrust's algorithms; with one of your own, have "
         "`limits.hold` decide", _beyond),
    Rule("Quadratic model is off",
         f"the median KL of the last {_LAST_UPDATES} updates is above {_FACTOR:g} times, or below "
         f"1/{_FACTOR:g} of, what was predicted",
         "a smaller `max_kl`, more `damping`", _model),
    Rule("Deviation collapsed",
         f"the deviation that the entropy stands for is within {_AT_FLOOR - 1:.0%} of `min_std`, "
         f"or below {_NO_FLOOR:g} without one; of discrete actions, entropy is below "
         f"{_FEW_CHOICES:.0%} of what it was",
         "more `entropy_cost`, a `max_kl_std`, a larger `min_std`; a solved task may be right as "
         "it is", _collapsed),
    Rule("Drift of the normaliser",
         f"after the first iteration `observation/drift_kl` is above {_DRIFT_SHARE:.0%} of the "
         "largest KL limit",
         "observations of very different sizes, or a network of your own that cannot be folded; "
         "scale them in the environment", _drift),
    Rule("Values explain nothing",
         f"the median of `value/explained_variance` over the last fifth is below {_EXPLAINED:g}",
         "more `value_epochs` or `value_rounds`, a larger value network, observations that the "
         "values alone may read", _explain_nothing),
    Rule("Simulator broke",
         "`environment/nonfinite` is above 0",
         "a smaller time step of the physics, another `--backend`, limits on actions",
         _nonfinite),
    Rule("Simulator out of room",
         "`environment/overflow` is above 0",
         "more contacts and constraints for Warp (docs/environments.md)", _overflow),
    Rule("Steps that were not finite",
         "`policy/skipped`, `value/skipped`, `observation/skipped` or `value/targets_skipped` is "
         "above 0",
         "look for huge observations or rewards; scale them", _skipped),
    Rule("Slower than before",
         f"median speed of the last tenth is below {_SLOWER:.0%} of the run's median",
         "another program on the machine, a full disk, a device that throttles", _slower),
)
