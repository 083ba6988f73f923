#!/usr/bin/env python3
"""What the algorithms learn with their defaults: whole processes, several seeds, one table.

    python scripts/benchmarks/benchmark_learning.py [--only trpo] [--seeds 5] [--json FILE] \
        [--keep DIR]

Each run is `jtrust train` in a process of its own, timed from its start to its end with
compilation, then `jtrust evaluate` (deterministic, 64 episodes, limit 1000). From its
`metrics.jsonl` come the largest KL of an accepted step and the largest drift by the normaliser.
The tasks and what they must reach stand in `TASKS`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from scripts.benchmarks.installed import described


@dataclasses.dataclass(frozen=True)
class Task:
    """One environment and algorithm, and what its runs must reach."""

    env: str
    algorithm: str
    steps: int
    seeds: int
    target: float
    options: tuple[str, ...] = ()
    limit_seconds: float | None = None


TASKS = (
    Task("brax/inverted_pendulum", "trpo", 1_000_000, 5, 950, limit_seconds=60),
    Task("brax/inverted_pendulum", "trpo", 1_000_000, 3, 950, ("--action-bins", "11")),
    Task("brax/inverted_pendulum", "npg", 2_000_000, 3, 900),
    Task("brax/inverted_pendulum", "ppo", 2_000_000, 3, 900),
    Task("brax/inverted_pendulum", "ppo-kl", 2_000_000, 3, 900),
    Task("brax/swimmer", "trpo", 1_000_000, 3, 35),
    Task("gymnax/CartPole-v1", "trpo", 250_000, 3, 475),
    Task("gymnax/CartPole-v1", "ppo", 250_000, 3, 475),
    Task("playground/CartpoleBalance", "trpo", 5_000_000, 3, 950),
    Task("playground/PendulumSwingup", "trpo", 10_000_000, 3, 700),
    Task("playground/CartpoleSwingup", "trpo", 10_000_000, 3, 700),
    Task("playground/ReacherEasy", "trpo", 5_000_000, 3, 800),
)


def run(task: Task, seed: int, folder: Path) -> dict:
    """Trains and evaluates once."""
    parts = [task.env.replace("/", "-"), task.algorithm, *task.options, str(seed)]
    run_dir = folder / "-".join(part.lstrip("-") for part in parts)
    command = [
        sys.executable, "-m", "jtrust", "train", task.env, "--algorithm", task.algorithm,
        "--steps", str(task.steps), "--seed", str(seed), "--run-dir", str(run_dir), *task.options,
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    evaluated = json.loads(subprocess.run(
        [sys.executable, "-m", "jtrust", "evaluate", str(run_dir), "--episodes", "64", "--json"],
        check=True, capture_output=True, text=True,
    ).stdout)
    config = json.loads((run_dir / "config.json").read_text())
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    accepted = [r for r in rows if r["policy/accepted"]]
    return {
        "env": task.env, "algorithm": " ".join([task.algorithm, *task.options]), "seed": seed,
        "return": evaluated["return_mean"], "steps": evaluated["step"], "seconds": seconds,
        "max_kl": config["hyperparameters"]["max_kl"],
        "largest_kl": max(r["policy/kl"] for r in accepted),
        "largest_drift_kl": max(r["observation/drift_kl"] for r in rows),
        "refused": len(rows) - len(accepted), "iterations": len(rows),
    }


def misses(task: Task, row: dict) -> list[str]:
    """What a run should have reached and did not."""
    found = []
    if not row["return"] >= task.target:
        found.append(f"return {row['return']:.0f} < {task.target:.0f}")
    if task.limit_seconds and row["seconds"] > task.limit_seconds:
        found.append(f"{row['seconds']:.0f} s > {task.limit_seconds:.0f} s")
    if row["largest_kl"] > row["max_kl"]:
        found.append("KL beyond max_kl")
    if row["largest_drift_kl"] >= 0.1 * row["max_kl"]:
        found.append("drift of a tenth of max_kl or more")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one algorithm")
    parser.add_argument("--env", help="one environment")
    parser.add_argument("--seeds", type=int, help="how many seeds, instead of each task's own")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--keep", type=Path, help="keep the run directories here")
    arguments = parser.parse_args()
    tasks = [
        t for t in TASKS
        if arguments.only in (None, t.algorithm) and arguments.env in (None, t.env)
    ]
    names = described("jtrust", "jax", "brax", "playground", "gymnax")
    print(f"{os.cpu_count()} CPUs, {names}\n")
    print("| environment | algorithm | seed | return | steps | seconds | largest KL / max_kl "
          "| largest drift / max_kl | refused | target |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for task in tasks:
            for seed in range(arguments.seeds or task.seeds):
                row = run(task, seed, folder)
                rows.append(row)
                missed = misses(task, row)
                failed += bool(missed)
                print(
                    f"| {row['env']} | {row['algorithm']} | {seed} | {row['return']:.1f} | "
                    f"{row['steps']:,} | {row['seconds']:.0f} | "
                    f"{row['largest_kl'] / row['max_kl']:.3f} | "
                    f"{row['largest_drift_kl'] / row['max_kl']:.1e} | "
                    f"{row['refused']} of {row['iterations']} | "
                    f"{'; '.join(missed) or 'reached'} |",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\n{len(rows) - failed} of {len(rows)} runs reached their target")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
