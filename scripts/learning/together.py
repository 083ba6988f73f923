"""All seeds of an arm as one program, by `vmap`, on one CPU device or one accelerator.

    python -m scripts.learning.together TASK ARM FIRST_SEED SEEDS SHARE FILE

What `worker` writes for one seed, for SEEDS of them: {seed: {"train", "evaluations"}}. A program
is traced and compiled once for all, and small batches share their operations, so that studies over
seeds take a part of the time. Its seconds are those of all seeds side by side and say nothing of a
run alone.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jtrust
from jtrust.runs.metrics import to_row
from jtrust.training import evaluate_policy
from jtrust.training.mesh import compiler_options
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
    environment = jtrust.make_env(task.env, **task.make)
    trainer = arm.trainer(environment, devices=1)
    iterations = arm.iterations(task)
    between = max(iterations // worker.EVALUATIONS, 1)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])

    @functools.partial(jax.jit, compiler_options=compiler_options(trainer.mesh))
    def train(states):
        return jax.lax.scan(
            lambda states, _: jax.vmap(trainer.iterate)(states), states, length=between
        )

    def act(parameters, observation, keys):
        return trainer.policy(*parameters, observation).mode()

    @jax.jit
    @jax.vmap
    def evaluate(parameters, seed):
        key = jax.random.key(1_000_000 + seed)
        found = evaluate_policy(trainer.environment, act, parameters, key, worker.EPISODES)
        return jnp.mean(found["return"])

    seconds = 0.0
    states = jax.vmap(trainer.init)(keys)
    rows: list[dict[str, Any]] = []
    found: dict[str, list] = {"step": [], "seconds": [], "return": []}
    for done in range(0, iterations + 1, between):
        if done:
            begun = time.perf_counter()
            states, metrics = train(states)
            metrics = jax.device_get(metrics)
            seconds += time.perf_counter() - begun
            rows += [
                {key: x[i] for key, x in metrics.items()} | {
                    "step": (done - between + i + 1) * trainer.steps_per_iteration,
                    "time/seconds": seconds,
                } for i in range(between)
            ]
        found["step"].append(done * trainer.steps_per_iteration)
        found["seconds"].append(round(seconds, 2))
        found["return"].append(np.asarray(
            evaluate((states.policy, states.observation_statistics), jnp.asarray(seeds))
        ))
        if done:
            keep(_by_seed(seeds, rows, found))
    return _by_seed(seeds, rows, found)


def _by_seed(
    seeds: range, rows: list[dict[str, Any]], found: dict[str, list]
) -> dict[str, dict[str, Any]]:
    return {
        str(seed): {
            "train": worker.thinned([_of_seed(row, i) for row in rows]),
            "evaluations": found | {"return": [worker.short(x[i]) for x in found["return"]]},
            "together": len(seeds),
        } for i, seed in enumerate(seeds)
    }


def _of_seed(row: dict[str, Any], i: int) -> dict[str, Any]:
    """One seed's metrics, without what is not there yet, as in metrics.jsonl."""
    return to_row({k: float(v[i]) if np.ndim(v) else v for k, v in row.items()})


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
