"""What looks wrong in a run, by rules: each with its threshold, its sentence and what to try.

The page shows all of them; docs/do/report.md lists them as `to_markdown` does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from jtrust.reporting.faults import (
    ABOVE_LIMIT,
    AT_FLOOR,
    DRIFT_SHARE,
    EXPLAINED,
    FACTOR,
    FEW_CHOICES,
    FEWEST,
    LAST_UPDATES,
    LOST,
    MOST_REFUSED,
    MOVED,
    NO_FLOOR,
    NO_SIGNAL,
    SLOWER,
    TINY_STEP,
    all_refused,
    beyond,
    collapsed,
    cut,
    drift,
    explain_nothing,
    fell,
    model,
    never_moved,
    no_signal,
    nonfinite,
    overflow,
    skipped,
    slower,
)
from jtrust.reporting.sources import Run


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


RULES = (
    Rule("Return never moved",
         f"no tenth of the run has a mean return more than {MOVED:.0%} above the first tenth's "
         f"(of {FEWEST} iterations with a return or more)",
         "check the reward; a larger `max_kl`, more environments, a longer run; "
         "a run that starts from a trained policy may be right as it is", never_moved),
    Rule("Return fell",
         f"the last tenth's mean return lost more than {LOST:.0%} of what the best tenth had "
         f"gained, and {MOVED:.0%} of that",
         "a smaller `max_kl`, more environments; take the policy of an earlier checkpoint "
         "(`--step`)", fell),
    Rule("Rewards tell nothing",
         f"`policy/kl_limit` is 0 in at least {NO_SIGNAL:.0%} of the iterations",
         "the reward is always the same and no episode failed; check it, or start states nearer "
         "to what pays", no_signal),
    Rule("Updates refused",
         f"at least {MOST_REFUSED:.0%} of the last {LAST_UPDATES} updates that might move the "
         "policy were refused",
         "look at skipped steps and at the values; more `damping`, a larger rollout, or the task "
         "is solved", all_refused),
    Rule("Steps cut short",
         f"the median step of the last {LAST_UPDATES} accepted updates is below {TINY_STEP:g} "
         "of the full one",
         "more `damping` or `cg_iterations`; with PPO a lower learning rate", cut),
    Rule("Trust region exceeded",
         f"an accepted update's KL is more than {ABOVE_LIMIT:g} times its limit",
         "this should not happen with jtrust's algorithms; with one of your own, have "
         "`limits.hold` decide", beyond),
    Rule("Quadratic model is off",
         f"the median KL of the last {LAST_UPDATES} updates is above {FACTOR:g} times, or below "
         f"1/{FACTOR:g} of, what was predicted",
         "a smaller `max_kl`, more `damping`", model),
    Rule("Deviation collapsed",
         f"the deviation that the entropy stands for is within {AT_FLOOR - 1:.0%} of `min_std`, "
         f"or below {NO_FLOOR:g} without one; of discrete actions, entropy is below "
         f"{FEW_CHOICES:.0%} of what it was",
         "more `entropy_cost`, a `max_kl_std`, a larger `min_std`; a solved task may be right as "
         "it is", collapsed),
    Rule("Drift of the normaliser",
         f"after the first iteration `observation/drift_kl` is above {DRIFT_SHARE:.0%} of the "
         "largest KL limit",
         "observations of very different sizes, or a network of your own that cannot be folded; "
         "scale them in the environment", drift),
    Rule("Values explain nothing",
         f"the median of `value/explained_variance` over the last fifth is below {EXPLAINED:g}",
         "more `value_epochs` or `value_rounds`, a larger value network, observations that the "
         "values alone may read", explain_nothing),
    Rule("Simulator broke",
         "`environment/nonfinite` is above 0",
         "a smaller time step of the physics, another `--backend`, limits on actions",
         nonfinite),
    Rule("Simulator out of room",
         "`environment/overflow` is above 0",
         "more contacts and constraints for Warp (docs/reference/environments.md)", overflow),
    Rule("Steps that were not finite",
         "`policy/skipped`, `value/skipped`, `observation/skipped` or `value/targets_skipped` is "
         "above 0",
         "look for huge observations or rewards; scale them", skipped),
    Rule("Slower than before",
         f"median speed of the last tenth is below {SLOWER:.0%} of the run's median",
         "another program on the machine, a full disk, a device that throttles", slower),
)
