#!/usr/bin/env python3
"""Kills a sweep again and again, resumes it, and compares its end with the sweep never killed.

    python scripts/benchmarks/soak_sweep.py [--kills 10] [--seeds 4] [--env brax/inverted_pendulum]

As soak.py: every session is a process of its own, ended by SIGKILL at a random moment. At the end
the metrics, times aside, and every array of the last checkpoint of every run of the sweep are
compared, bit for bit.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from scripts.benchmarks.soak import SAVING, SIZE, differences, finish, jtrust, kill, rows, size_of

SETTINGS = ["--max-kl", "0.005", "0.02"]


def members(sweep: Path) -> list[Path]:
    return sorted(p for p in sweep.glob("*") if p.is_dir())


def size(sweep: Path) -> int:
    return sum(size_of(run) for run in members(sweep))


def soak(env: str, kills: int, steps: int, seeds: int, folder: Path, seed: int) -> dict[str, int]:
    """Kills, resumes, and the number of differences at the end."""
    rng = random.Random(seed)
    train = ["sweep", env, "--steps", str(steps), "--seeds", str(seeds), *SETTINGS, *SIZE, *SAVING]
    whole, broken = folder / "whole", folder / "broken"
    finish(jtrust(*train, "--run-dir", str(whole)))
    counts = {"kills": 0, "while_starting": 0, "while_saving": 0, "resumes": 0}
    while True:
        if (broken / "sweep.json").exists():
            counts["resumes"] += 1
            process = jtrust("resume", str(broken))
        else:
            process = jtrust(*train, "--run-dir", str(broken))
        if counts["kills"] >= kills:
            finish(process)
            break
        counts["while_starting"] += kill(process, lambda: size(broken), rng, 12.0)
        counts["kills"] += 1
        counts["while_saving"] += any(broken.glob("*/*.orbax-checkpoint-tmp*"))
    names = [run.name for run in members(whole)]
    found = sum(differences(whole / name, broken / name) for name in names)
    found += names != [run.name for run in members(broken)]
    return {
        "members": len(names), "iterations": len(rows(whole / names[0])), **counts,
        "differences": found,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=400_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--env", default="brax/inverted_pendulum")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(given.env, given.kills, given.steps, given.seeds, Path(folder), given.seed)
    print(f"| {' | '.join(name.replace('_', ' ') for name in found)} |")
    print("|" + " --- |" * len(found))
    print(f"| {' | '.join(map(str, found.values()))} |")
    return int(found["differences"] > 0)


if __name__ == "__main__":
    sys.exit(main())
