"""Tables of the runs that `learning_curves.py run` has kept."""

from __future__ import annotations

import json
import statistics as plain
from pathlib import Path

from scripts.learning import statistics
from scripts.learning.suite import SUITE, Task

ARMS = ("trpo", "ppo", "npg", "ppo-kl", "brax-ppo", "sb3-trpo", "rejax-ppo")
OURS = ARMS[:4]


def load_all(folder: Path) -> dict[str, dict[str, list[dict]]]:
    """{task: {arm: its runs}}, tasks in the order of the suite."""
    found: dict[str, dict[str, list[dict]]] = {}
    for task in SUITE:
        for path in sorted(folder.glob(f"{task}--*.json")):
            kept = json.loads(path.read_text())
            if kept["runs"]:
                found.setdefault(task, {})[kept["arm"]] = list(kept["runs"].values())
    return found


def ends(runs: list[dict], axis: str) -> float:
    """Where the runs of an arm end on an axis, "step" or "seconds": the median."""
    return plain.median(run["evaluations"][axis][-1] for run in runs)


def values_at(runs: list[dict], axis: str, where: float) -> list[float]:
    """Return of each run at a point of an axis."""
    curves = [run["evaluations"] for run in runs]
    return [statistics.at(c[axis], c["return"], where) for c in curves]


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
            values = found[name] = values_at(arms[name], axis, where)
            low, high = statistics.bootstrap_interval(
                statistics.interquartile_mean, {task: values}
            )
            middle = statistics.interquartile_mean({task: values})
            cells.append(f"{_number(middle)} [{_number(low)}, {_number(high)}] ({len(values)})")
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


def aggregate(data: dict[str, dict[str, list[dict]]], axis: str, peer: str = "brax-ppo") -> str:
    """All tasks that have every arm together: normalised interquartile means and improvement."""
    lines = []
    for name in OURS[:2]:
        scores: dict[str, dict[str, list[float]]] = {name: {}, peer: {}}
        for task, arms in data.items():
            if name not in arms or peer not in arms or ends(arms[peer], axis) == 0:
                continue
            where = common_end(arms, [name, peer], axis)
            for one in (name, peer):
                scores[one][task] = normalized(
                    SUITE[task], values_at(arms[one], axis, where)
                )
        if not scores[name]:
            continue
        parts = []
        for one in (name, peer):
            low, high = statistics.bootstrap_interval(
                statistics.interquartile_mean, scores[one]
            )
            parts.append(
                f"{one} {statistics.interquartile_mean(scores[one]):.2f} [{low:.2f}, {high:.2f}]"
            )
        better = statistics.probability_of_improvement(scores[name], scores[peer])
        low, high = statistics.bootstrap_interval(
            statistics.probability_of_improvement, scores[name], scores[peer]
        )
        lines.append(
            f"- {len(scores[name])} tasks: {parts[0]}; {parts[1]}; probability of improvement "
            f"{better:.2f} [{low:.2f}, {high:.2f}]"
        )
    return "\n".join(lines)


def _number(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def studies(data: dict[str, dict[str, list[dict]]]) -> list[str]:
    """Every arm with settings of its own beside the same algorithm's defaults, at their end."""
    lines = [
        "| task | setting | return | defaults | difference | better than the defaults |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task, arms in data.items():
        for arm, runs in arms.items():
            base = arm.partition(":")[0]
            if ":" not in arm or base not in arms:
                continue
            where = min(ends(runs, "step"), ends(arms[base], "step"))
            ours = values_at(runs, "step", where)
            theirs = values_at(arms[base], "step", where)

            def difference(a, b):
                return statistics.interquartile_mean(a) - statistics.interquartile_mean(b)

            scores = ({task: ours}, {task: theirs})
            low, high = statistics.bootstrap_interval(difference, *scores)
            lines.append(
                f"| {task} | {arm} | {_number(statistics.interquartile_mean(scores[0]))} "
                f"({len(ours)}) | {_number(statistics.interquartile_mean(scores[1]))} "
                f"({len(theirs)}) | {_number(difference(*scores))} "
                f"[{_number(low)}, {_number(high)}] | "
                f"{statistics.probability_of_improvement(*scores):.2f} |"
            )
    return lines


def as_markdown(data: dict[str, dict[str, list[dict]]]) -> str:
    """The page of all tables."""
    text = [
        "# Returns", "",
        "Written by `python scripts/learning_curves.py report`. Interquartile mean over seeds of",
        "the mean return of 32 episodes of the policy's mode, its 95 % stratified bootstrap",
        "interval, and the number of seeds. `better than the peer`: the probability that a run of",
        "the arm returned more than one of brax-ppo. `no update yet`: time ended before the first.",
    ]
    plain_arms = without_studies(data)
    for axis, title in (("seconds", "At equal time"), ("step", "At equal steps")):
        text += ["", f"## {title}", "", table(plain_arms, axis), "", aggregate(plain_arms, axis)]
    text += ["", "## Studies", "", *studies(data)]
    return "\n".join(text) + "\n"


def without_studies(data: dict[str, dict[str, list[dict]]]) -> dict[str, dict[str, list[dict]]]:
    """The runs with default settings: others belong to studies, not to the comparison."""
    found = {
        task: {arm: runs for arm, runs in arms.items() if ":" not in arm}
        for task, arms in data.items()
    }
    return {task: arms for task, arms in found.items() if arms}
