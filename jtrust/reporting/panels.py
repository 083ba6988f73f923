"""What a report draws: one `Panel` for each metric, in the order of the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

from jtrust.reporting.sources import Run

Values = Callable[[Run], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
      id: of its place on the page.
      section: under which heading it stands.
      title: what is drawn.
      unit: of the vertical axis, in words.
      values: of a run, [rows]; NaN where a row has none.
      note: what a reader should know, in a sentence.
      band: "seeds" for interquartile mean and bootstrap interval over the seeds of a setting,
        "range" for the median over them and everything from the lowest to the highest.
      limit: of a run, [rows]: drawn dashed.
      line: a value that is drawn across.
      log: whether the vertical axis is logarithmic; what is not positive is left out.
      against: the horizontal axis, environment steps or seconds.
      always: draw it although all values are zero.
      metrics: of metrics.jsonl that it shows.
    """

    id: str
    section: str
    title: str
    unit: str
    values: Values
    note: str = ""
    band: Literal["seeds", "range"] = "range"
    limit: Values | None = None
    line: float | None = None
    log: bool = False
    against: Literal["steps", "seconds"] = "steps"
    always: bool = True
    metrics: tuple[str, ...] = ()


def kl_limit(run: Run) -> np.ndarray:
    """What each update's KL might be, [rows]: as the row says, or else `max_kl`."""
    told = run.column("policy/kl_limit")
    return np.where(np.isfinite(told), told, run.hyperparameter("max_kl"))


def _share(above: str, below: Callable[[Run], np.ndarray]) -> Values:
    """One metric over another; NaN where either is not positive."""

    def values(run: Run) -> np.ndarray:
        over, under = run.column(above), below(run)
        good = (over > 0) & (under > 0)
        return np.where(good, over / np.where(good, under, 1.0), np.nan)

    return values


def _so_far(values: Values) -> Values:
    """Sums up to each row; NaN where nothing was ever measured."""

    def total(run: Run) -> np.ndarray:
        found = values(run)
        return np.where(np.isfinite(found).any(), np.nancumsum(found), np.nan)

    return total


def refused(run: Run) -> np.ndarray:
    """1 for each update that was refused, [rows]."""
    return 1.0 - run.column("policy/accepted")


def seconds(run: Run) -> np.ndarray:
    """Time of training up to each row, [rows]; sessions of a run one behind the other.

    Each counts from its first row on: what comes before is compiling, which may take as long as
    all the rest.
    """
    steps = np.diff(np.nan_to_num(run.column("time/seconds")), prepend=np.inf)
    return np.cumsum(np.maximum(steps, 0.0))


def _column(name: str) -> Values:
    return lambda run: run.column(name)


def _plain(section: str, metric: str, title: str, unit: str, note: str = "", **more) -> Panel:
    return Panel(_id(metric), section, title, unit, _column(metric), note, metrics=(metric,),
                 **more)


def _counted(section: str, metric: str, title: str, unit: str, note: str = "") -> Panel:
    return Panel(_id(metric), section, title, unit, _so_far(_column(metric)), note, always=False,
                 metrics=(metric,))


def _id(metric: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in metric)


RETURN, COSTS, REGION, LEARNING, MACHINE, OTHER = (
    "Return", "Costs", "Trust region", "Policy and values", "Simulator and speed", "Other metrics"
)

PANELS = (
    _plain(RETURN, "episode/return", "Return of training episodes", "return per episode",
           "Mean over the episodes that ended in an iteration; actions are sampled.", band="seeds"),
    _plain(RETURN, "evaluation/return", "Return of evaluation", "return per episode",
           "Whole episodes by the policy's mode.", band="seeds"),
    Panel("return-seconds", RETURN, "Return against time", "return per episode",
          _column("episode/return"), "Without compiling: from each session's first iteration on.",
          band="seeds", against="seconds", metrics=("episode/return", "time/seconds")),
    _plain(RETURN, "episode/length", "Length of training episodes", "steps per episode"),
    _plain(RETURN, "evaluation/length", "Length of evaluation episodes", "steps per episode"),
    Panel("policy-kl", REGION, "KL divergence of each update", "KL (nats)", _column("policy/kl"),
          "Dashed: the limit of that update.", limit=kl_limit,
          metrics=("policy/kl", "policy/kl_limit")),
    Panel("kl-share", REGION, "KL over its limit", "ratio", _share("policy/kl", kl_limit),
          "Dashed: 1, which no accepted update exceeds.", line=1.0,
          metrics=("policy/kl", "policy/kl_limit")),
    Panel("kl-ratio", REGION, "KL measured over KL predicted", "ratio",
          _share("policy/kl", _column("policy/kl_predicted")),
          "Dashed: 1, where the quadratic model is right.", line=1.0, log=True,
          metrics=("policy/kl", "policy/kl_predicted")),
    _plain(REGION, "policy/kl_mean", "KL by the mean of actions", "KL (nats)",
           "The part of the KL that moves where actions lie."),
    Panel("policy-kl-std", REGION, "KL by the deviation of actions", "KL (nats)",
          _column("policy/kl_std"),
          "The part that changes how far actions spread; dashed: its own limit, if it has one.",
          limit=_column("policy/kl_std_limit"), metrics=("policy/kl_std", "policy/kl_std_limit")),
    Panel("policy-kl-max", REGION, "Largest KL of a state", "KL (nats)", _column("policy/kl_max"),
          "Dashed: the limit in every state, if there is one.",
          limit=_column("policy/kl_max_limit"),
          metrics=("policy/kl_max", "policy/kl_max_limit")),
    *(Panel(f"{part}-constraint", REGION, f"Largest distance of a state, {of}", "distance",
            _column(f"policy/{part}_constraint_max"), "Dashed: its limit.",
            limit=_column(f"policy/{part}_constraint_limit"),
            metrics=(f"policy/{part}_constraint_max", f"policy/{part}_constraint_limit"))
      for part, of in (("mean", "means"), ("cov", "covariances"))),
    _plain(REGION, "policy/projected", "States that the projection layer moved", "share"),
    _plain(REGION, "policy/kl_parts", "KL of each part of an update", "KL (nats)"),
    _plain(REGION, "policy/step_scale", "Part of the full step that was taken", "share",
           "1 whole, 0 refused."),
    Panel("refused", REGION, "Updates refused so far", "updates", _so_far(refused),
          "The old policy stays.", always=False, metrics=("policy/accepted",)),
    _counted(REGION, "policy/skipped", "Policy gradient steps skipped so far", "steps",
             "Their loss, gradient or Fisher-vector product was not finite."),
    Panel("drift", REGION, "Drift by the observation normaliser over the KL limit", "ratio",
          _share("observation/drift_kl", kl_limit),
          "What the policy moved outside of updates. Folding leaves rounding.", log=True,
          metrics=("observation/drift_kl",)),
    _plain(REGION, "policy/surrogate_gain", "Surrogate gain", "deviations of the advantage"),
    _plain(REGION, "policy/cg_residual", "Residual of conjugate gradients",
           "share of the gradient's norm", log=True),
    _plain(REGION, "policy/clip_fraction", "Probability ratios outside the clip", "share"),
    _plain(REGION, "policy/kl_coefficient", "Coefficient of the KL penalty", "coefficient",
           log=True),
    _plain(REGION, "policy/learning_rate", "Learning rate of the policy", "learning rate",
           log=True),
    _plain(REGION, "policy/precision_kl", "KL by reduced precision", "KL (nats)", log=True),
    _plain(LEARNING, "policy/entropy", "Entropy of the policy", "entropy (nats)"),
    _plain(LEARNING, "value/explained_variance", "Variance explained by the values",
           "share of variance", "Before each fit. Dashed: 0, no better than a constant.", line=0.0),
    _plain(LEARNING, "value/loss", "Value loss", "loss", log=True),
    _counted(LEARNING, "value/skipped", "Value gradient steps skipped so far", "steps",
             "Their loss or gradient was not finite."),
    _counted(LEARNING, "value/targets_skipped", "Value targets left out so far", "batches",
             "Their mean or variance was not finite."),
    _plain(MACHINE, "time/steps_per_second", "Speed of training", "environment steps per second"),
    _counted(MACHINE, "environment/nonfinite", "Steps with NaN or infinity so far",
             "environment steps"),
    _counted(MACHINE, "environment/overflow", "Steps without room for contacts so far",
             "environment steps"),
    _counted(MACHINE, "observation/skipped", "Batches left out of the normaliser so far",
             "batches", "Their mean or variance was not finite."),
)

# Of each cost, `cost/NAME/...`: title, unit.
_OF_COSTS = {
    "estimate": ("Cost by the rollouts", "cost per episode"),
    "multiplier": ("Multiplier of the cost", "multiplier"),
    "surrogate_change": ("Change of the cost by the surrogate", "cost per episode"),
    "value_loss": ("Loss of the cost's values", "loss"),
    "explained_variance": ("Variance explained by the cost's values", "share of variance"),
    "infeasible": ("Limit out of reach", "1 where it seems so"),
}


def _of_costs(names: set[str]) -> list[Panel]:
    """The panels of costs, whose names are the environment's, each with its limit."""
    found = []
    for cost in sorted(n for n in names if n.startswith("cost/") and n.count("/") == 1):
        limit = f"{cost}/limit"
        dashed: dict[str, Any] = {"limit": _column(limit)} if limit in names else {}
        found.append(dataclasses.replace(
            _plain(COSTS, cost, f"Cost of training episodes: {cost.partition('/')[2]}",
                   "cost per episode", "Mean over the episodes that ended in an iteration."
                   + " Dashed: the limit." * bool(dashed), band="seeds", **dashed),
            metrics=(cost, limit),
        ))
        for what, (title, unit) in _OF_COSTS.items():
            if (metric := f"{cost}/{what}") in names:
                more = dashed if what == "estimate" else {}
                found.append(_plain(COSTS, metric, f"{title}: {cost.partition('/')[2]}", unit,
                                    always=what != "infeasible", **more))
    return found


_NO_PANEL = {"step", "iteration", "time/seconds", "episode/count"}
_MOST_OTHERS = 24


def panels_for(names: Iterable[str]) -> list[Panel]:
    """The panels, those of costs, and one more for each metric that none of them shows."""
    names = list(names)
    known = [*PANELS, *_of_costs(set(names))]
    shown = {metric for panel in known for metric in panel.metrics} | _NO_PANEL
    others = [name for name in dict.fromkeys(names) if name not in shown][:_MOST_OTHERS]
    return [*known, *(
        dataclasses.replace(_plain(OTHER, name, name, name), id=f"other-{i}")
        for i, name in enumerate(others)
    )]
