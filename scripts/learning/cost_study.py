"""Learning under limits on costs: CPO, multipliers, and a fixed penalty that was searched for.

    python -m scripts.learning.cost_study --run [TASK ...]    # trains what is not kept yet
    python -m scripts.learning.cost_study                     # page and figure of what is kept

Five seeds of each method on three tasks, as one program per method. Of the fixed penalty, TRPO on
reward - w cost, three w are trained with all five seeds, and the best of them stands for it.
Keeps docs/evidence/costs/TASK.json; writes docs/evidence/costs/results.md and .svg.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

import jtrust

PAGES = Path(__file__).resolve().parents[2] / "docs/evidence/costs"
SEEDS, POINTS = 5, 60
# How near a limit a mean over the end of a run counts as kept.
NEAR = 1.1


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment, its limits, and how long to train.

    Attributes:
      env: for `jtrust.make_env`.
      limits: by the names of its costs.
      weights: of the cost in the fixed penalties.
      steps: of each run.
    """

    env: str
    limits: dict[str, float]
    weights: tuple[float, ...]
    steps: int

    @property
    def cost(self) -> str:
        """The name of its cost."""
        (name,) = self.limits
        return name

    @property
    def limit(self) -> float:
        return self.limits[self.cost]


TASKS = {
    "inverted_pendulum_distance": Task(
        "safe/inverted_pendulum_distance", {"distance": 50.0}, (1.0, 4.0, 16.0), 500_000
    ),
    "inverted_double_pendulum_torque": Task(
        "safe/inverted_double_pendulum_torque", {"torque": 100.0}, (1.0, 4.0, 16.0), 600_000
    ),
    "reacher_torque": Task(
        "safe/reacher_torque", {"torque": 50.0}, (0.3, 1.0, 3.0), 1_200_000
    ),
}
METHODS = {
    "CPO": jtrust.CPO, "TRPO, multipliers": jtrust.TRPOLagrangian,
    "PPO, multipliers": jtrust.PPOLagrangian,
}
FIXED = "fixed penalty"


def arms(task: Task) -> list[str]:
    """What is trained on a task, by name."""
    return [*METHODS, *(f"{FIXED}, w = {w:g}" for w in task.weights)]


def train(task: Task, arm: str) -> list[dict[str, Any]]:
    """The curves of one method's seeds."""
    env = jtrust.make_env(task.env, backend="spring")
    weight = 0.0
    if arm in METHODS:
        algorithm: Any = METHODS[arm](cost_limits=task.limits)
    else:
        algorithm, weight = jtrust.TRPO(), float(arm.rpartition(" ")[2])
        env = jtrust.wrappers.penalize_costs(env, {task.cost: weight})
    found = jtrust.train_many(env, algorithm, seeds=SEEDS, total_steps=task.steps)
    return [curve(member.metrics, task, weight) for member in found.members]


def curve(metrics: dict[str, np.ndarray], task: Task, weight: float = 0.0) -> dict[str, Any]:
    """One run, thinned: means over stretches, and its excess over the limit, of all iterations."""
    cost = metrics[f"cost/{task.cost}"]
    # The penalty taken off the reward is put back.
    reward = metrics["episode/return"] + weight * cost
    over = np.maximum(cost - task.limit, 0.0)
    groups = [g for g in np.array_split(np.arange(len(cost)), POINTS) if len(g)]
    recovery = metrics.get("policy/recovery")
    return {
        "step": [int(metrics["step"][g[-1]]) for g in groups],
        "cost": [_mean(cost[g]) for g in groups],
        "return": [_mean(reward[g]) for g in groups],
        "excess": _mean(over),
        "recoveries": None if recovery is None else int(np.sum(recovery)),
    }


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(f"{np.mean(values):.5g}") if len(values) else None


def at_end(curve: dict[str, Any], what: str) -> float:
    """Mean over the last tenth of a run."""
    return float(np.mean([x for x in curve[what][-POINTS // 10:] if x is not None]))


def best_penalty(found: dict[str, Any], task: Task) -> str | None:
    """The penalty that ends with the highest return of those that end within reach of the limit;
    with the least cost where none does; None where none was trained yet."""

    def of(arm: str, what: str) -> float:
        return float(np.mean([at_end(c, what) for c in found[arm]]))

    tried = [arm for arm in found if arm.startswith(FIXED)]
    kept = [arm for arm in tried if of(arm, "cost") <= NEAR * task.limit]
    if kept:
        return max(kept, key=lambda arm: of(arm, "return"))
    return min(tried, key=lambda arm: of(arm, "cost"), default=None)


def page(kept: dict[str, dict[str, Any]]) -> str:
    """The tables, in Markdown."""
    lines = [
        "`python -m scripts.learning.cost_study --run`: five seeds each; cost and return are means "
        "per episode over the last tenth of the steps, excess is the mean over all iterations of "
        "max(0, J_C - d).", "",
        "| task, limit d | method | cost, over seeds | of the limit, least to most | return | "
        "excess while learning |", "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in kept.items():
        task = TASKS[name]
        best = best_penalty(found, task)
        for arm in found:
            mark = " (best)" if arm == best else ""
            lines.append(f"| `{name}`, {task.limit:g} | {arm}{mark} | {_row(found[arm], task)} |")
    return "\n".join(lines) + "\n\n![Costs and returns while learning](results.svg)\n"


def _row(curves: list[dict[str, Any]], task: Task) -> str:
    costs = np.asarray([at_end(c, "cost") for c in curves])
    returns = np.asarray([at_end(c, "return") for c in curves])
    share = costs / task.limit
    excess = np.mean([c["excess"] for c in curves])
    return (
        f"{costs.mean():.1f} ± {costs.std():.1f} | {share.min():.2f} to {share.max():.2f} | "
        f"{returns.mean():.0f} ± {returns.std():.0f} | {excess:.1f}"
    )


def figure(kept: dict[str, dict[str, Any]], path: Path) -> None:
    """Costs above returns, a column for each task; bands from the least seed to the most."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    size = (3.4 * len(kept), 5.0)
    fig, axes = plt.subplots(2, len(kept), figsize=size, layout="constrained", squeeze=False)
    for column, (name, found) in zip(axes.T, kept.items(), strict=True):
        task = TASKS[name]
        best = best_penalty(found, task)
        shown = [*(arm for arm in METHODS if arm in found), *([best] if best else [])]
        for axis, what in zip(column, ("cost", "return"), strict=True):
            for i, arm in enumerate(shown):
                values = np.asarray([c[what] for c in found[arm]], float)
                steps = np.asarray(found[arm][0]["step"]) / 1e3
                axis.plot(steps, np.nanmean(values, 0), color=f"C{i}", label=arm)
                axis.fill_between(
                    steps, np.nanmin(values, 0), np.nanmax(values, 0), color=f"C{i}", alpha=0.15,
                    linewidth=0,
                )
            axis.set_ylabel(f"{what} per episode")
            axis.set_xlabel("thousand steps")
        column[0].axhline(task.limit, color="black", linestyle="--", linewidth=0.8)
        column[0].set_title(name)
        column[0].set_ylim(0, 4 * task.limit)
        column[1].legend(frameon=False, fontsize=7)
    fig.savefig(path)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", nargs="*", choices=[*TASKS], metavar="TASK")
    chosen = parser.parse_args().run
    for name in ([] if chosen is None else chosen or [*TASKS]):
        path = PAGES / f"{name}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        for arm in arms(TASKS[name]):
            if arm not in found:
                found[arm] = train(TASKS[name], arm)
                path.write_text(json.dumps(found) + "\n")
                print(name, arm, _row(found[arm], TASKS[name]), flush=True)
    kept = {
        name: json.loads((PAGES / f"{name}.json").read_text()) for name in TASKS
        if (PAGES / f"{name}.json").exists()
    }
    (PAGES / "results.md").write_text(page(kept))
    figure(kept, PAGES / "results.svg")


if __name__ == "__main__":
    main()
