"""Tables and plots of the runs that `learning_curves.py run` has kept."""

from __future__ import annotations

import json
import statistics as plain
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt

from scripts.learning import statistics
from scripts.learning.suite import SUITE, Task

# Okabe and Ito's colours, told apart by most who see few.
_COLOURS = {
    "trpo": "#0072B2", "ppo": "#D55E00", "npg": "#009E73", "ppo-kl": "#CC79A7",
    "brax-ppo": "#555555", "sb3-trpo": "#E69F00", "rejax-ppo": "#56B4E9",
}
_OURS = ("trpo", "ppo", "npg", "ppo-kl")
_LIMITS = {"trpo": 0.01, "npg": 0.01, "ppo": 0.05, "ppo-kl": 0.05}


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
    names = [n for n in _COLOURS if n != peer and any(n in arms for arms in data.values())]
    names.append(peer)
    unit = {"seconds": "seconds", "step": "steps"}[axis]
    lines = [
        f"| task | {unit} | " + " | ".join(names) + " | better than the peer |",
        "| --- " * (len(names) + 3) + "|",
    ]
    for task, arms in data.items():
        there = [name for name in names if name in arms]
        compared = [name for name in there if name in (*_OURS[:2], peer)] or there
        where = common_end(arms, compared, axis)
        cells, found = [], {}
        for name in names:
            if name not in arms:
                cells.append("-")
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
                ) for name in _OURS if name in found
            }
            verdict = ", ".join(f"{name} {chance:.2f}" for name, chance in better.items())
        lines.append(f"| {task} | {where:,.0f} | " + " | ".join(cells) + f" | {verdict} |")
    return "\n".join(lines)


def aggregate(data: dict[str, dict[str, list[dict]]], axis: str, peer: str = "brax-ppo") -> str:
    """All tasks that have every arm together: normalised interquartile means and improvement."""
    lines = []
    for name in _OURS[:2]:
        scores: dict[str, dict[str, list[float]]] = {name: {}, peer: {}}
        for task, arms in data.items():
            if name not in arms or peer not in arms:
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


def plot_returns(data: dict[str, dict[str, list[dict]]], axis: str, path: Path) -> None:
    """Return against steps or seconds: interquartile mean over seeds, and their range."""
    figure, panels = _panels(len(data))
    for panel, (task, arms) in zip(panels, data.items(), strict=False):
        for name in (n for n in _COLOURS if n in arms):
            grid = np.linspace(0, ends(arms[name], axis), 60)
            grid = grid[grid >= max(r["evaluations"][axis][0] for r in arms[name])]
            if not len(grid):
                continue
            curves = np.asarray([values_at(arms[name], axis, x) for x in grid])
            middle = [statistics.interquartile_mean({0: x}) for x in curves]
            panel.plot(grid, middle, color=_COLOURS[name], label=name, linewidth=1.5)
            panel.fill_between(
                grid, curves.min(1), curves.max(1), color=_COLOURS[name], alpha=0.15, linewidth=0
            )
        panel.set_title(task, fontsize=9)
        panel.set_xlim(left=0)
    _finish(figure, panels, {"step": "environment steps", "seconds": "seconds"}[axis], "return",
            path)


def plot_kl(data: dict[str, dict[str, list[dict]]], path: Path) -> None:
    """The largest KL of an update over its limit, against steps, all seeds."""
    figure, panels = _panels(len(data))
    for panel, (task, arms) in zip(panels, data.items(), strict=False):
        for name in (n for n in _OURS if n in arms):
            for i, run in enumerate(arms[name]):
                train = run["train"]
                panel.plot(
                    train["step"], np.asarray(train["largest_kl"]) / _LIMITS[name],
                    color=_COLOURS[name], linewidth=0.6, label=name if i == 0 else None,
                )
        panel.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
        panel.set_title(task, fontsize=9)
        panel.set_ylim(0, 1.2)
    _finish(figure, panels, "environment steps", "KL / limit", path)


def plot_profiles(data: dict[str, dict[str, list[dict]]], path: Path) -> None:
    """Share of runs above a normalised return at equal time, over tasks with every arm."""
    names = [n for n in ("trpo", "ppo", "brax-ppo") if any(n in arms for arms in data.values())]
    whole = {task: arms for task, arms in data.items() if all(n in arms for n in names)}
    if not whole:
        return
    levels = np.linspace(0, 1.2, 121)
    figure, panel = plt.subplots(figsize=(4.2, 3))
    for name in names:
        scores = {
            task: normalized(SUITE[task], values_at(
                arms[name], "seconds", common_end(arms, names, "seconds")
            ))
            for task, arms in whole.items()
        }
        panel.plot(levels, statistics.performance_profile(scores, levels), label=name,
                   color=_COLOURS[name])
    panel.set_ylim(0, 1.02)
    _finish(figure, [panel], "normalised return τ", "share of runs above τ", path)


def _panels(count: int) -> tuple[plt.Figure, list[plt.Axes]]:
    columns = min(4, count)
    rows = -(-count // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(3 * columns, 2.2 * rows), squeeze=False)
    flat = list(panels.flat)
    for panel in flat[count:]:
        panel.set_visible(False)
    return figure, flat[:count]


def _finish(
    figure: plt.Figure, panels: list[plt.Axes], x: str, y: str, path: Path
) -> None:
    for panel in panels:
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3, linewidth=0.5)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    labels: dict[str, object] = {}
    for panel in panels:
        handles, names = panel.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.legend(labels.values(), labels.keys(), loc="upper center", ncols=len(labels),
                  fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write(folder: Path) -> None:
    """Tables into tables.md and plots as SVG, beside the runs' folder."""
    plt.rcParams["svg.hashsalt"] = "jtrust"
    data = load_all(folder)
    # Arms with settings of their own belong to studies, not to the comparison.
    plain_arms = {
        task: {arm: runs for arm, runs in arms.items() if ":" not in arm}
        for task, arms in data.items()
    }
    plain_arms = {task: arms for task, arms in plain_arms.items() if arms}
    place = folder.parent
    for axis in ("step", "seconds"):
        plot_returns(plain_arms, axis, place / f"return-{axis}.svg")
    plot_kl(plain_arms, place / "kl.svg")
    plot_profiles(plain_arms, place / "profiles.svg")
    text = [
        "# Returns", "",
        "Written by `python scripts/learning_curves.py report`. Interquartile mean over seeds of",
        "the mean return of 32 episodes of the policy's mode, its 95 % stratified bootstrap",
        "interval, and the number of seeds. `better than the peer`: the probability that a run of",
        "the arm returned more than one of brax-ppo.",
    ]
    for axis, title in (("seconds", "At equal time"), ("step", "At equal steps")):
        text += ["", f"## {title}", "", table(plain_arms, axis), "", aggregate(plain_arms, axis)]
    text += ["", "## Studies", "", *studies(data)]
    (place / "tables.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


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
