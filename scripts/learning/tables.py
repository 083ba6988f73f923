"""Tables of the runs that `learning_curves.py run` has kept."""

from __future__ import annotations

import json
import math
import statistics as plain
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jtrust import statistics
from scripts.learning.suite import OURS, SUITE, Task

ARMS = (*OURS, "brax-ppo", "sb3-trpo", "rejax-ppo")


def load_all(folder: Path) -> dict[str, dict[str, list[dict]]]:
    """{task: {arm: its runs}}, tasks in the order of the suite."""
    found: dict[str, dict[str, list[dict]]] = {}
    for task in SUITE:
        for path in sorted(folder.glob(f"{task}--*.json")):
            kept = json.loads(path.read_text())
            if kept["runs"]:
                found.setdefault(task, {})[kept["arm"]] = list(kept["runs"].values())
    return found


# Fewer runs than this give a range and no interval: a bootstrap of three excludes what is true in
# one of five cases and not in one of twenty.
LEAST_FOR_INTERVAL = 5


def ends(runs: list[dict], axis: str) -> float:
    """Where the runs of an arm have ended on an axis: by "step" the first, by "seconds" the median.

    A run that has ended keeps its policy while seconds pass, but steps it has not made say nothing.
    """
    found = [run["evaluations"][axis][-1] for run in runs]
    return plain.median(found) if axis == "seconds" else min(found)


def values_at(runs: list[dict], axis: str, where: float) -> list[float]:
    """Return of each run at a point of an axis; NaN before its first evaluation.

    In seconds that of the last evaluation: what somebody who stops there has in hand. In steps that
    on the line between the evaluations before and after: runs are evaluated at different steps, and
    the last evaluation of one can lie long before that of another, which has learned for longer.
    """
    curves = [run["evaluations"] for run in runs]
    if axis == "seconds":
        return [statistics.at(c[axis], c["return"], where) for c in curves]
    return [float(np.interp(where, c[axis], c["return"], left=np.nan)) for c in curves]


def common_end(arms: dict[str, list[dict]], names: list[str], axis: str) -> float:
    """The last point of an axis that all of these arms have reached."""
    return min(ends(arms[name], axis) for name in names)


def normalized(task: Task, returns: list[float]) -> list[float]:
    return [(x - task.low) / (task.high - task.low) for x in returns]


def table(data: dict[str, dict[str, list[dict]]], axis: str, peer: str = "brax-ppo") -> str:
    """Per task, what each arm returned where the shortest of them ended."""
    names = [n for n in ARMS if n != peer and any(n in arms for arms in data.values())]
    names.append(peer)
    unit = {"seconds": "seconds", "step": "steps"}[axis]
    lines = [
        f"| task | {unit} | " + " | ".join(names) + " | better than the peer |",
        "| --- " * (len(names) + 3) + "|",
    ]
    for task, arms in data.items():
        # An arm that time ended before its first update has taken no steps to be compared at.
        arms = {name: runs for name, runs in arms.items() if ends(runs, axis) > 0}
        there = [name for name in names if name in arms]
        if not there:
            continue
        compared = [name for name in there if name in (*OURS[:2], peer)] or there
        where = common_end(arms, compared, axis)
        cells, found = [], {}
        for name in names:
            if name not in arms:
                cells.append("no update yet" if name in data[task] else "-")
                continue
            values = values_at(arms[name], axis, where)
            if not known(values):
                cells.append("not yet")
                continue
            found[name] = values
            ended = axis == "step" and ends(arms[name], axis) < 0.98 * where
            cells.append(summary(task, values) + " ended early" * ended)
        verdict = "-"
        if peer in found:
            better = {
                name: statistics.probability_of_improvement(
                    {task: found[name]}, {task: found[peer]}
                ) for name in OURS if name in found
            }
            verdict = ", ".join(f"{name} {chance:.2f}" for name, chance in better.items())
        lines.append(f"| {task} | {where:,.0f} | " + " | ".join(cells) + f" | {verdict} |")
    return "\n".join(lines)


def known(values: list[float]) -> bool:
    """Whether every run had been evaluated by then."""
    return not any(math.isnan(x) for x in values)


def summary(task: str, values: list[float]) -> str:
    """`middle [low, high] (seeds)`: from 5 seeds an interval, of fewer their range, of one none."""
    middle = statistics.interquartile_mean({task: values})
    low, high = min(values), max(values)
    if len(values) >= LEAST_FOR_INTERVAL:
        low, high = statistics.bootstrap_interval(statistics.interquartile_mean, {task: values})
    between = f" [{number(low)}, {number(high)}]" if len(values) > 1 else ""
    return f"{number(middle)}{between} ({len(values)})"


def interval(statistic: Callable[..., float], *scores: statistics.Scores) -> str:
    """` [low, high]`, or nothing where a task has too few runs."""
    if min(len(runs) for one in scores for runs in one.values()) < LEAST_FOR_INTERVAL:
        return ""
    low, high = statistics.bootstrap_interval(statistic, *scores)
    return f" [{low:.2f}, {high:.2f}]"


def aggregate(data: dict[str, dict[str, list[dict]]], axis: str, peer: str = "brax-ppo") -> str:
    """All tasks that have every arm together: normalised interquartile means and improvement."""
    lines = []
    for name in OURS[:2]:
        scores: dict[str, dict[str, list[float]]] = {name: {}, peer: {}}
        for task, arms in data.items():
            if name not in arms or peer not in arms or ends(arms[peer], axis) == 0:
                continue
            where = common_end(arms, [name, peer], axis)
            both = {one: values_at(arms[one], axis, where) for one in (name, peer)}
            if not all(map(known, both.values())):
                continue
            for one, values in both.items():
                scores[one][task] = normalized(SUITE[task], values)
        if not scores[name]:
            continue
        mean, improvement = statistics.interquartile_mean, statistics.probability_of_improvement
        parts = [
            f"{one} {mean(scores[one]):.2f}{interval(mean, scores[one])}" for one in (name, peer)
        ]
        pair = scores[name], scores[peer]
        lines.append(
            f"- {len(scores[name])} tasks: {parts[0]}; {parts[1]}; probability of improvement "
            f"{improvement(*pair):.2f}{interval(improvement, *pair)}"
        )
    return "\n".join(lines)


def number(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def as_markdown(data: dict[str, dict[str, list[dict]]]) -> str:
    """The page of all tables."""
    text = [
        "# Returns", "",
        "Written by `python scripts/learning_curves.py report`. Interquartile mean over seeds of",
        "the mean return of 32 episodes of the policy's mode (below 4 seeds: their mean); in",
        "brackets its 95 % stratified bootstrap interval, below 5 seeds their range; the number",
        "of seeds. What counts is at equal time the last evaluation up to there, at equal steps",
        "the line between those before and after. `better than the peer`: the probability that",
        "a run of the arm returned more than one of brax-ppo. `no update yet`: time ended before",
        "the first, so that the return at equal time is that of the untrained policy; `not yet`:",
        "before a run's first evaluation; `ended early`: before those steps.",
    ]
    plain_arms = without_studies(data)
    for axis, title in (("seconds", "At equal time"), ("step", "At equal steps")):
        text += ["", f"## {title}", "", table(plain_arms, axis), "", aggregate(plain_arms, axis)]
    return "\n".join(text) + "\n"


def without_studies(data: dict[str, dict[str, list[dict]]]) -> dict[str, dict[str, list[dict]]]:
    """The runs with default settings: others belong to studies, not to the comparison."""
    found = {
        task: {arm: runs for arm, runs in arms.items() if ":" not in arm}
        for task, arms in data.items()
    }
    return {task: arms for task, arms in found.items() if arms}
