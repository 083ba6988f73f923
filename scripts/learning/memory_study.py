"""What memory is worth: tasks with hidden velocities and a maze by networks, five seeds each.

    python -m scripts.learning.memory_study run [--tasks hopper ...] [--arms trpo-gru-hidden ...]
    python -m scripts.learning.memory_study      # table and figure of the runs that are kept

An arm is ALGORITHM-NETWORK-OBSERVATION: `trpo` or `ppo`; `mlp`, `gru`, `lstm` or `s5`; `full`,
`hidden` (no velocities), `stacked` (the last four observations without velocities) or `changes`
(the last one, and the three changes that led to it). The runs of an arm are one program. Writes
runs/TASK-ARM.json, study.md and study.svg in docs/evidence/memory/.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import statistics

PAGES = Path(__file__).resolve().parents[2] / "docs/evidence/memory"
SEEDS, POINTS, STACKED = 5, 8, 4
ALGORITHMS = ("trpo", "ppo")
IN_MAZE = ("mlp-full", "gru-full", "lstm-full", "s5-full")
NETWORKS = (
    "mlp-full", "mlp-hidden", "mlp-stacked", "mlp-changes", "gru-hidden", "lstm-hidden",
    "s5-hidden",
)


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment and what is hidden in it.

    Attributes:
      env, options: for `jtrust.make_env`.
      steps: environment steps of a run.
      velocities: where they are in an observation.
      networks: arms, behind the algorithm.
      settings: of all arms, beside the defaults.
      of_trpo: of those of TRPO.
    """

    env: str
    options: dict[str, Any]
    steps: int
    velocities: tuple[int, ...] = ()
    networks: tuple[str, ...] = NETWORKS
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    of_trpo: dict[str, Any] = dataclasses.field(default_factory=dict)


TASKS = {
    "hopper": Task("brax/hopper", {"backend": "spring"}, 2_000_000, tuple(range(5, 11))),
    "CartpoleSwingup": Task(
        "playground/CartpoleSwingup", {}, 5_000_000, (3, 4), of_trpo={"damping": 0.01}
    ),
    "t_maze": Task(
        "examples.t_maze:make", {"length": 10}, 250_000, (), IN_MAZE, {"discount": 0.98}
    ),
}


def environment_of(task: Task, observation: str) -> Any:
    """The environment of a task as an arm sees it."""
    import jtrust
    from jtrust.environments import wrappers

    environment = jtrust.make_env(task.env, **task.options)
    if observation == "full":
        return environment
    hidden = wrappers.hide(environment, task.velocities)
    if observation == "hidden":
        return hidden
    return wrappers.frame_stack(hidden, STACKED, differences=observation == "changes")


def run(name: str, arm: str) -> None:
    """Trains the seeds of an arm as one program and keeps their evaluations."""
    import jtrust

    task = TASKS[name]
    algorithm, network, observation = arm.split("-")
    iterations = -(-task.steps // (64 * 64))
    start = time.time()
    made = jtrust.TRPO(**task.of_trpo) if algorithm == "trpo" else jtrust.PPO()
    found = jtrust.train_many(
        environment_of(task, observation), made,
        **task.settings, seeds=SEEDS, total_steps=task.steps, num_envs=64, unroll_length=64,
        memory=None if network == "mlp" else network, evaluate_every=iterations // POINTS,
    )
    seconds = time.time() - start
    kept = [_evaluations(member.metrics) for member in found.members]
    (PAGES / "runs").mkdir(parents=True, exist_ok=True)
    path = PAGES / "runs" / f"{name}-{arm}.json"
    path.write_text(json.dumps({"seconds": round(seconds), "seeds": kept}) + "\n")
    print(name, arm, round(seconds), [round(x["return"][-1]) for x in kept], flush=True)


def _evaluations(metrics: dict[str, np.ndarray]) -> dict[str, list[float]]:
    told = np.isfinite(metrics["evaluation/return"])
    return {
        "step": [int(x) for x in metrics["step"][told]],
        "return": [float(f"{x:.5g}") for x in metrics["evaluation/return"][told]],
    }


def read() -> dict[str, dict[str, dict]]:
    """{task: {arm: what is kept}} of the runs that there are."""
    found: dict[str, dict[str, dict]] = {}
    for task in TASKS:
        for algorithm in ALGORITHMS:
            for network in TASKS[task].networks:
                path = PAGES / "runs" / f"{task}-{algorithm}-{network}.json"
                if path.is_file():
                    found.setdefault(task, {})[path.stem.removeprefix(f"{task}-")] = json.loads(
                        path.read_text()
                    )
    return found


def last(runs: dict) -> np.ndarray:
    """The return of each seed, mean of the last two evaluations."""
    return np.asarray([np.mean(seed["return"][-2:]) for seed in runs["seeds"]])


def as_markdown(found: dict[str, dict[str, dict]]) -> str:
    """Returns by task and arm, beside those of the same algorithm that sees velocities."""
    lines = [
        "Written by `python -m scripts.learning.memory_study`: return of the policy's mode over 32",
        "episodes, mean of the last two evaluations; interquartile mean over seeds, its 95 %",
        "interval, and the share of what the same algorithm has with velocities.", "",
        "| task, steps | arm | return | 95 % over seeds | share of full | seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task, arms in found.items():
        for arm, runs in arms.items():
            values = last(runs)
            low, high = statistics.bootstrap_interval(
                statistics.interquartile_mean, {task: values}
            )
            full = arms.get(f"{arm.split('-')[0]}-mlp-full")
            share = "-"
            if full is not None and TASKS[task].velocities:
                share = f"{_iqm(values) / _iqm(last(full)):.2f}"
            lines.append(
                f"| {task}, {TASKS[task].steps / 1e6:g} M | {arm} | {_iqm(values):.0f} | "
                f"{low:.0f} to {high:.0f} | {share} | {len(values)} |"
            )
    return "\n".join(lines) + "\n"


def _iqm(values: np.ndarray) -> float:
    return statistics.interquartile_mean({"": values})


def figure(found: dict[str, dict[str, dict]], path: Path) -> None:
    """Returns over steps, one panel for each task and algorithm."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    fig, grid = plt.subplots(
        len(found), 2, figsize=(11, 3.2 * len(found)), layout="constrained", squeeze=False,
        sharey="row",
    )
    names = dict.fromkeys((*NETWORKS, *IN_MAZE))
    colours = {network: f"C{i}" for i, network in enumerate(names)}
    for row, (task, arms) in zip(grid, found.items(), strict=True):
        for axes, algorithm in zip(row, ALGORITHMS, strict=True):
            for arm, runs in arms.items():
                own, network = arm.split("-", 1)
                if own == algorithm:
                    axes.set_title(f"{task}, {algorithm.upper()}")
                    _curve(axes, runs, network, colours[network])
            axes.set_xlabel("million steps")
        row[0].set_ylabel("return")
    for axes in grid.flat:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        else:
            axes.set_axis_off()
    fig.savefig(path, metadata={"Date": None})


def _curve(axes: Any, runs: dict, label: str, colour: str) -> None:
    count = min(len(seed["step"]) for seed in runs["seeds"])
    steps = np.asarray(runs["seeds"][0]["step"][:count]) / 1e6
    returns = np.asarray([seed["return"][:count] for seed in runs["seeds"]])
    axes.plot(steps, [_iqm(x) for x in returns.T], color=colour, label=label.replace("-", ", "))
    axes.fill_between(steps, returns.min(axis=0), returns.max(axis=0), color=colour, alpha=0.15)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore
    parser.add_argument("command", nargs="?", choices=("run", "report"), default="report")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    every = [f"{algorithm}-{network}" for algorithm in ALGORITHMS for network in (
        *NETWORKS, *IN_MAZE[1:]
    )]
    parser.add_argument("--arms", nargs="+", choices=every, default=every)
    given = parser.parse_args(args)
    if given.command == "run":
        for task in given.tasks:
            for arm in given.arms:
                if arm.split("-", 1)[1] in TASKS[task].networks:
                    run(task, arm)
    else:
        found = read()
        (PAGES / "study.md").write_text(as_markdown(found))
        figure(found, PAGES / "study.svg")


if __name__ == "__main__":
    main()
