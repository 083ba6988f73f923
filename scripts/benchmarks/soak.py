#!/usr/bin/env python3
"""Kills a run again and again, resumes it, and compares its end with the run that was never killed.

    python scripts/benchmarks/soak.py [--kills 30] [--algorithms trpo ppo] \
        [--env brax/inverted_pendulum]

Every session is a process of its own, ended by SIGKILL at a random moment: while it starts, while
it trains, while it writes a checkpoint (they are written every second iteration, so that many kills
fall into one). At the end the metrics, times aside, and every array of the last checkpoint are
compared, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jtrust.runs.checkpoints import CheckpointReader

SIZE = ["--num-envs", "64", "--unroll-length", "32"]
SAVING = ["--checkpoint-every", "2", "--keep-checkpoints", "4"]


def jtrust(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "jtrust", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a session ended with status {process.returncode}:\n{output}")


def rows(run_dir: Path) -> list[dict]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines
    ]


def soak(algorithm: str, env: str, kills: int, steps: int, folder: Path, seed: int) -> dict:
    """One algorithm: kills, resumes, and the number of differences at the end."""
    rng = random.Random(seed)
    train = ["train", env, "--algorithm", algorithm, "--steps", str(steps), *SIZE, *SAVING]
    whole, broken = folder / f"{algorithm}-whole", folder / f"{algorithm}-broken"
    finish(jtrust(*train, "--run-dir", str(whole)))
    counts = {"kills": 0, "while_starting": 0, "while_saving": 0, "resumes": 0}
    while True:
        if (broken / "config.json").exists():
            counts["resumes"] += 1
            process = jtrust("resume", str(broken), "--keep-checkpoints", "4")
        else:
            process = jtrust(*train, "--run-dir", str(broken))
        if counts["kills"] >= kills:
            finish(process)
            break
        counts["while_starting"] += kill(process, lambda: size_of(broken), rng)
        counts["kills"] += 1
        counts["while_saving"] += any(broken.glob("*.orbax-checkpoint-tmp*"))
    return {**counts, "iterations": len(rows(whole)), "differences": differences(whole, broken)}


def kill(
    process: subprocess.Popen, size: Callable[[], int], rng: random.Random, start: float = 5.0
) -> bool:
    """Ends a session by SIGKILL at a random moment; whether it had not come to train by then.

    Args:
      process: the session.
      size: what it has written; grows as it trains.
      rng: chooses: once in five times within the first `start` seconds, else while it trains.
      start: seconds.
    """
    before = size()
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.0, start))
    else:
        while process.poll() is None and size() == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 1.5))
    if process.poll() is not None:
        raise SystemExit("it was done before the last kill: give it more --steps")
    process.kill()
    process.wait()
    process.stdout.close()
    return size() == before


def size_of(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def differences(whole: Path, broken: Path) -> int:
    """Rows and arrays that differ in any bit."""
    a, b = rows(whole), rows(broken)
    found = abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False))
    step = a[-1]["step"]
    a, b = (CheckpointReader(path).read(step) for path in (whole, broken))
    found += len(set(a) ^ set(b))
    return found + sum(not np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f")
                       for k in set(a) & set(b))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=1_600_000)
    parser.add_argument("--env", default="brax/inverted_pendulum")
    parser.add_argument("--algorithms", nargs="+", default=["trpo", "ppo"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    worst = 0
    print("| algorithm | iterations | kills | of them while starting | with a save under way "
          "| resumes | differences |\n| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in arguments.algorithms:
            found = soak(algorithm, arguments.env, arguments.kills, arguments.steps, Path(folder),
                         arguments.seed)
            worst = max(worst, found["differences"])
            print(f"| {algorithm} | {found['iterations']} | {found['kills']} | "
                  f"{found['while_starting']} | {found['while_saving']} | {found['resumes']} | "
                  f"{found['differences']} |", flush=True)
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
