"""Plots of the runs that `learning_curves.py run` has kept."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt

from jtrust import statistics
from scripts.learning.suite import OURS, SUITE
from scripts.learning.tables import common_end, ends, normalized, values_at

# Okabe and Ito's colours, told apart by most who see few.
_COLOURS = {
    "trpo": "#0072B2", "ppo": "#D55E00", "npg": "#009E73", "ppo-kl": "#CC79A7",
    "brax-ppo": "#555555", "sb3-trpo": "#E69F00", "rejax-ppo": "#56B4E9",
    "trpl": "#F0E442",
}
_LIMITS = {"trpo": 0.01, "npg": 0.01, "ppo": 0.05, "ppo-kl": 0.05, "trpl": 0.05}


def plot_returns(data: dict[str, dict[str, list[dict]]], axis: str, path: Path) -> None:
    """Return against steps or seconds: interquartile mean over seeds, and their range."""
    figure, panels = _panels(len(data))
    for panel, (task, arms) in zip(panels, data.items(), strict=False):
        # A peer that goes on for much longer is shown as far as ours go, and a little beyond.
        ours = [ends(arms[name], axis) for name in OURS if name in arms]
        right = 1.5 * max(ours) if ours else np.inf
        for name in (n for n in _COLOURS if n in arms):
            grid = np.linspace(0, min(ends(arms[name], axis), right), 60)
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
        for name in (n for n in OURS if n in arms):
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


def _prepare() -> None:
    plt.rcParams["svg.hashsalt"] = "jtrust"
    plt.rcParams["svg.fonttype"] = "none"  # letters as letters, which makes small files


def draw(data: dict[str, dict[str, list[dict]]], place: Path) -> None:
    """All plots as SVG, into `place`."""
    _prepare()
    for axis in ("step", "seconds"):
        plot_returns(data, axis, place / f"return-{axis}.svg")
    plot_kl(data, place / "kl.svg")
    plot_profiles(data, place / "profiles.svg")


# Of runs with so many environments; others are black.
_BY_COUNT = {64: "#999999", 1024: "#56B4E9", 4096: "#0072B2", 16_384: "#D55E00"}
_STYLES = {"trpo": "-", "ppo": "--"}


def plot_counts(
    data: dict[str, dict[tuple[str, int], list[dict]]], of_each: bool, path: Path
) -> None:
    """Return by the number of environments: interquartile means over seeds.

    Args:
      data: {task: {(algorithm, environments): runs}}.
      of_each: against the steps that each environment has taken, in place of those of all.
      path: of the SVG.
    """
    figure, panels = _panels(len(data))
    for panel, (task, arms) in zip(panels, data.items(), strict=True):
        for (name, count), runs in arms.items():
            steps = np.linspace(0, ends(runs, "step"), 60)[1:]
            middle = [
                statistics.interquartile_mean({0: values_at(runs, "step", x)}) for x in steps
            ]
            panel.plot(
                steps / count if of_each else steps / 1e6, middle, _STYLES[name],
                color=_BY_COUNT.get(count, "black"), label=f"{name}, {count}", linewidth=1.3,
            )
        if of_each:
            panel.set_xscale("log")
        panel.set_title(task, fontsize=9)
    _finish(figure, panels, "steps of each environment" if of_each else "million steps of all",
            "return", path)


def draw_counts(data: dict[str, dict[tuple[str, int], list[dict]]], place: Path) -> None:
    """Both plots of the study of the number of environments, into `place`."""
    _prepare()
    plot_counts(data, False, place / "return-step.svg")
    plot_counts(data, True, place / "return-own-step.svg")
