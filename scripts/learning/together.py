"""All seeds of an arm as one program, `jtrust.train_many`, on one CPU device or one accelerator.

    python -m scripts.learning.together TASK ARM FIRST_SEED SEEDS SHARE FILE

What `worker` writes for one seed, for SEEDS of them: {seed: {"train", "evaluations"}}. A program
is traced and compiled once for all, and small batches share their operations, so that studies over
seeds take a part of the time. Its seconds are those of all seeds side by side and say nothing of a
run alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jtrust
from jtrust.runs import run_episodes
from scripts.learning import worker
from scripts.learning.suite import Task, parse_arm, shortened


def run(
    task: Task, algorithm: str, settings: dict[str, Any], seeds: range,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict[str, dict[str, Any]]:
    """Trains every seed to the task's steps, evaluating all of them at ten points and before.

    What there is after an evaluation is given to `keep`, for who ends this process.
    """
    arm = worker.configure(task, algorithm, settings)
    trainer = arm.trainer(jtrust.make_env(task.env, **task.make), devices=1)
    rows: dict[int, list[dict[str, Any]]] = {seed: [] for seed in seeds}
    before = {seed: _untrained(trainer, seed) for seed in seeds}

    def make_sinks(member: Any) -> list[Callable]:
        def note(info: jtrust.IterationInfo) -> None:
            rows[member.seed].append(dict(info.row))
            whole = len({len(of_seed) for of_seed in rows.values()}) == 1
            if whole and info.row["evaluation/return"] is not None:
                keep(_by_seed(rows, before))

        return [note]

    jtrust.train_many(
        trainer, seeds=list(seeds), total_steps=task.steps, devices=1, make_sinks=make_sinks,
        evaluate_every=max(arm.iterations(task) // worker.EVALUATIONS, 1),
    )
    return _by_seed(rows, before)


def _untrained(trainer: jtrust.Trainer, seed: int) -> float:
    policy = trainer.policy_of(trainer.init(jax.random.key(seed)))
    return float(np.mean(
        run_episodes(policy, trainer.environment, worker.EPISODES)["return"]
    ))


def _by_seed(
    rows: dict[int, list[dict[str, Any]]], before: dict[int, float]
) -> dict[str, dict[str, Any]]:
    found = {}
    for seed, of_seed in rows.items():
        points = [row for row in of_seed if row["evaluation/return"] is not None]
        found[str(seed)] = {
            "train": worker.thinned(of_seed),
            "evaluations": {
                "step": [0, *(row["step"] for row in points)],
                "seconds": [0.0, *(round(row["time/seconds"], 2) for row in points)],
                "return": [worker.short(x) for x in (
                    before[seed], *(row["evaluation/return"] for row in points)
                )],
            },
            "together": len(rows),
        }
    return found


def main() -> None:
    name, arm, first, count, share, out = sys.argv[1:]
    algorithm, settings = parse_arm(arm)
    seeds = range(int(first), int(first) + int(count))

    def keep(found: dict) -> None:
        partial = Path(out).with_suffix(".partial")
        partial.write_text(json.dumps(
            {seed: one | worker.accelerator() for seed, one in found.items()}
        ))
        partial.rename(out)

    keep(run(shortened(name, float(share)), algorithm, settings, seeds, keep))


if __name__ == "__main__":
    main()
