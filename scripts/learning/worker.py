"""One learning run in one process, on one CPU device or on the accelerators that JAX shows.

    python -m scripts.learning.worker TASK ARM SEED MOST_SECONDS SHARE FILE

SHARE is how much of the task's steps are run. Writes FILE, a JSON object: how the run went
(`train`, at the end of iterations, jtrust's runs alone) and what its policies returned
(`evaluations`: the mode of the policy, 32 whole episodes, at ten points of the run and before it).
Seconds count from the start of training, with compilation and without evaluations.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.learning.suite import Task, parse_arm, shortened

EVALUATIONS = 10
EPISODES = 32
# Curves are averaged to about this many points.
_POINTS = 60


@dataclasses.dataclass(frozen=True)
class Arm:
    """What an arm trains with: an algorithm, what is not the algorithm's, and what is left out."""

    algorithm: Any
    network: Any
    numbers: dict[str, int]
    lacks: tuple[str, ...] = ()

    def trainer(self, environment: Any, **options: Any) -> Any:
        from jtrust.training import make_trainer
        from scripts.learning.ablations import without

        trainer = make_trainer(
            environment, self.algorithm, network=self.network, **self.numbers, **options
        )
        for part in self.lacks:
            trainer = without(trainer, part)
        return trainer

    def iterations(self, task: Task) -> int:
        """How many a task's steps take, rounded up."""
        return -(-task.steps // (self.numbers["num_envs"] * self.numbers["unroll_length"]))


def configure(task: Task, algorithm: str, settings: dict[str, Any]) -> Arm:
    """An arm by its name and its settings, each of which goes to where its name belongs."""
    from jtrust.algorithms import ALGORITHMS
    from jtrust.networks import NetworkConfig
    from scripts.learning.ablations import ABLATIONS

    left = dict(settings)
    numbers = {"num_envs": task.num_envs, "unroll_length": 64}
    numbers |= {k: left.pop(k) for k in settings if k in numbers}
    shape = {f.name for f in dataclasses.fields(NetworkConfig)}
    network = NetworkConfig(**{k: left.pop(k) for k in settings if k in shape})
    lacks = tuple(part for part in ABLATIONS if left.pop(part, True) is False)
    return Arm(ALGORITHMS[algorithm](**left), network, numbers, lacks)


def jtrust_run(task: Task, algorithm: str, settings: dict[str, Any], seed: int,
               most_seconds: float) -> dict[str, Any]:
    """A run by `jtrust.train`, its checkpoints evaluated when it has ended."""
    import jtrust

    arm = configure(task, algorithm, settings)
    begun = time.perf_counter()
    environment = jtrust.make_env(task.env, **task.make)
    tracing = time.perf_counter() - begun  # others trace the environment after their clock starts
    iterations = arm.iterations(task)
    # The signal that ends a run early also has it write a checkpoint.
    timer = threading.Timer(most_seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        timer.start()
        jtrust.train(
            arm.trainer(environment), total_steps=task.steps, seed=seed, run_dir=run_dir,
            checkpoint_every=max(iterations // EVALUATIONS, 1),
        )
        timer.cancel()
        rows = [json.loads(x) for x in (run_dir / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            row["time/seconds"] += tracing
        evaluations = _evaluate_checkpoints(run_dir, environment, rows, seed)
    return {"train": thinned(rows), "evaluations": evaluations}


def _evaluate_checkpoints(run_dir: Path, environment: Any, rows: list[dict], seed: int) -> dict:
    """Every checkpoint's policy at once, as one program."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jtrust
    from jtrust.training import evaluate_policy

    seconds = {0: 0.0} | {row["step"]: row["time/seconds"] for row in rows}
    steps = sorted(int(p.name) for p in run_dir.iterdir() if p.name.isdigit())
    steps = [step for step in steps if step in seconds]
    policies = [jtrust.load_policy(run_dir, step) for step in steps]

    def act(parameters, memory, observation, keys):
        return policies[0].distribution(*parameters, observation).mode(), memory

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[(p.params, p.statistics) for p in policies])
    returns = jax.jit(jax.vmap(
        lambda parameters: evaluate_policy(
            environment, act, parameters, jax.random.key(1_000_000 + seed), EPISODES
        )["return"]
    ))(stacked)
    return {
        "step": steps, "seconds": [round(seconds[s], 2) for s in steps],
        "return": [short(x) for x in np.mean(returns, axis=1)],
    }


_KEPT = {
    "return": "episode/return", "kl": "policy/kl", "entropy": "policy/entropy",
    "accepted": "policy/accepted", "drift_kl": "observation/drift_kl",
    "explained_variance": "value/explained_variance", "step_scale": "policy/step_scale",
}
# What holds in every state, and its limit; not every algorithm has one.
_IN_STATES = {
    "policy/kl_max": "policy/kl_max_limit",
    "policy/mean_constraint_max": "policy/mean_constraint_limit",
    "policy/cov_constraint_max": "policy/cov_constraint_limit",
}


def thinned(rows: list[dict]) -> dict[str, list]:
    """Means over runs of adjacent iterations; of the KL also the largest.

    So of the KL of the state that moved most, and of what it, and distances, are of their limits.
    """
    import numpy as np

    groups = np.array_split(np.arange(len(rows)), min(_POINTS, len(rows)))
    found: dict[str, list] = {"step": [], "seconds": [], "largest_kl": [], "largest_kl_max": []}
    for group in groups:
        some = [rows[i] for i in group]
        found["step"].append(some[-1]["step"])
        found["seconds"].append(round(some[-1]["time/seconds"], 2))
        found["largest_kl"].append(short(max(row["policy/kl"] for row in some)))
        found["largest_kl_max"].append(short(max(row["policy/kl_max"] for row in some)))
        if any(limit in rows[0] for limit in _IN_STATES.values()):
            found.setdefault("of_limit", []).append(short(max(map(_of_limit, some))))
        for name, key in _KEPT.items():
            values = [row[key] for row in some if row.get(key) is not None]
            found.setdefault(name, []).append(short(np.mean(values)) if values else None)
    return found


def _of_limit(row: dict) -> float:
    """The largest share of a limit that a state took."""
    return max(
        row[name] / row[limit] for name, limit in _IN_STATES.items() if row.get(limit, 0) > 0
    )


def brax_ppo_run(task: Task, settings: dict[str, Any], seed: int, most_seconds: float,
                 keep: Callable[[dict], None]) -> dict:
    """A run by brax's PPO with what brax, or Playground, publishes for the environment."""
    from scripts.learning import peers

    return peers.brax_ppo(task, settings, seed, most_seconds, EVALUATIONS, EPISODES, keep)


def sb3_trpo_run(task: Task, settings: dict[str, Any], seed: int, most_seconds: float,
                 keep: Callable[[dict], None]) -> dict:
    from scripts.learning import sb3

    return sb3.trpo(task, settings, seed, most_seconds, EVALUATIONS, EPISODES)


def rejax_ppo_run(task: Task, settings: dict[str, Any], seed: int, most_seconds: float,
                  keep: Callable[[dict], None]) -> dict:
    from scripts.learning import peers

    return peers.rejax_ppo(task, settings, seed, EVALUATIONS, EPISODES)


_PEERS: dict[str, Callable[..., dict]] = {
    "brax-ppo": brax_ppo_run, "sb3-trpo": sb3_trpo_run, "rejax-ppo": rejax_ppo_run,
}


def accelerator() -> dict[str, str]:
    """What the run was on, where it was not a CPU."""
    import jax

    device = jax.devices()[0]
    return {} if device.platform == "cpu" else {"device": device.device_kind}


def short(x: Any) -> float:
    return float(f"{float(x):.5g}")


def main() -> None:
    name, arm, seed, most_seconds, share, out = sys.argv[1:]
    task = shortened(name, float(share))
    algorithm, settings = parse_arm(arm)

    def keep(found: dict) -> None:
        Path(out).write_text(json.dumps(found | accelerator()))

    if algorithm in _PEERS:
        keep(_PEERS[algorithm](task, settings, int(seed), float(most_seconds), keep))
    else:
        keep(jtrust_run(task, algorithm, settings, int(seed), float(most_seconds)))


if __name__ == "__main__":
    main()
