"""Tables of studies: settings of an arm's own beside the same algorithm's defaults."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jtrust import statistics
from scripts.learning import tables
from scripts.learning.suite import SUITE, parse_arm

# TRPO had no bonus for the entropy when most of its settings were tried, and stands for itself.
REFERENCES = ("trpo:entropy_cost=0.0",)

Runs = dict[str, dict[str, list[dict]]]


def difference(ours: statistics.Scores, theirs: statistics.Scores) -> float:
    """Of the interquartile means of each task, averaged over tasks."""
    mean = statistics.interquartile_mean
    return float(np.mean([mean({t: ours[t]}) - mean({t: theirs[t]}) for t in ours]))


def reference(arm: str, arms: dict[str, list[dict]]) -> str:
    """What an arm stands beside: the one of `REFERENCES` whose setting it has too, or defaults."""
    name, settings = parse_arm(arm)
    for one in REFERENCES:
        base, shared = parse_arm(one)
        if one in arms and base == name and shared.items() < settings.items():
            return one
    return name


def table(data: Runs) -> list[str]:
    """Every arm with settings of its own beside its `reference`, at their end."""
    lines = [
        "| task | setting | steps | return | defaults | difference | better than the defaults |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    pairs: dict[str, tuple[dict, dict]] = {}
    for task, arms in data.items():
        for arm, runs in arms.items():
            base = reference(arm, arms)
            if ":" not in arm or base not in arms:
                continue
            where = tables.common_end(arms, [arm, base], "step")
            ours = tables.values_at(runs, "step", where)
            theirs = tables.values_at(arms[base], "step", where)
            if not tables.known(ours + theirs):
                continue
            scores = ({task: ours}, {task: theirs})
            lines.append(
                f"| {task} | {arm} | {where:,.0f} | {tables.summary(task, ours)} | "
                f"{tables.summary(task, theirs)} | {tables.number(difference(*scores))}"
                f"{tables.interval(difference, *scores)} | "
                f"{statistics.probability_of_improvement(*scores):.2f} |"
            )
            for side, values in zip(pairs.setdefault(arm, ({}, {})), (ours, theirs), strict=True):
                side[task] = tables.normalized(SUITE[task], values)
    return lines + _over_tasks({arm: pair for arm, pair in pairs.items() if len(pair[0]) >= 3})


def _over_tasks(pairs: dict[str, tuple[dict, dict]]) -> list[str]:
    """One row for each setting that several tasks have been run with."""
    if not pairs:
        return []
    lines = [
        "", "| setting | tasks | better on | mean difference of normalised returns | "
        "over seeds, on these tasks |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm, pair in sorted(pairs.items()):
        each = [difference({t: pair[0][t]}, {t: pair[1][t]}) for t in pair[0]]
        middle, low, high = statistics.mean_over_tasks(each)
        lines.append(
            f"| {arm} | {len(each)} | {sum(x > 0 for x in each)} | {middle:+.3f} "
            f"[{low:+.3f}, {high:+.3f}] |{tables.interval(difference, *pair) or ' -'} |"
        )
    return lines


def seeds_table(data: Runs) -> list[str]:
    """The defaults over many seeds, at their end: also the worst one, and how many learned."""
    lines = [
        "| task | algorithm | steps | return | worst | learned | wanted |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for task, arms in data.items():
        wanted = SUITE[task].wanted
        for arm, runs in arms.items():
            where = tables.ends(runs, "step")
            values = tables.values_at(runs, "step", where)
            learned = "-" if wanted is None else (
                f"{sum(x >= wanted for x in values)} of {len(values)}"
            )
            lines.append(
                f"| {task} | {arm} | {where:,.0f} | {tables.summary(task, values)} | "
                f"{tables.number(min(values))} | {learned} | {wanted or '-'} |"
            )
    return lines


def as_markdown(data: Runs, defaults: Path) -> str:
    """The page of a folder's tables: its settings beside the defaults, or those over many seeds."""
    text = [
        "# Studies", "",
        "Written by `python scripts/learning_curves.py report --data` with the folder of their",
        "runs. Returns as in the other tables at equal steps, at the last step that both have",
        "reached; in brackets the range of the seeds, whose number stands behind, and from 5",
        "seeds the 95 % interval by a stratified bootstrap. `defaults` are those of the time: TRPO",
        "without a bonus for the entropy where a setting has `entropy_cost=0.0` beside others.",
    ]
    if any(":" in arm for arms in data.values() for arm in arms):
        text += [
            "Over three tasks and more differences of normalised returns are put together: with",
            "the 95 % interval of their mean by Student's t, a task being one observation, which",
            "speaks of other tasks like them; and, where each has 5 seeds of both, by the",
            "bootstrap, which speaks of other seeds of these.",
            "", *table(with_defaults(data, defaults)),
        ]
    else:
        text += ["`learned`: runs that ended at what is wanted or more.", "", *seeds_table(data)]
    return "\n".join(text) + "\n"


def with_defaults(data: Runs, folder: Path) -> Runs:
    """Studies with the runs of the defaults from another folder, where they have none."""
    plain_runs = tables.without_studies(tables.load_all(folder))
    return {task: plain_runs.get(task, {}) | arms for task, arms in data.items()}
