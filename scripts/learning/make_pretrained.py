#!/usr/bin/env python3
"""Trains the policies under checkpoints/pretrained/ and writes what each returns on its card.

    python scripts/learning/make_pretrained.py [NAME ...]

Each is `jtrust train` with the defaults, of which the last checkpoint's policy is kept: what
`jtrust.load_policy` and `jtrust evaluate` read, and not what `jtrust resume` would need.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# From here, wherever this is called: modules of scripts/ are found by their whole names.
ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)
from scripts.benchmarks.installed import versions

PLACE = ROOT / "checkpoints" / "pretrained"
EPISODES = 128


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """One policy to take away."""

    env: str
    steps: int
    algorithm: str = "trpo"
    options: tuple[str, ...] = ()


POLICIES = {
    "inverted_pendulum": Pretrained("brax/inverted_pendulum", 1_000_000),
    "inverted_double_pendulum": Pretrained("brax/inverted_double_pendulum", 3_000_000),
    "reacher": Pretrained("brax/reacher", 5_000_000, options=("--backend", "spring")),
    "hopper": Pretrained("brax/hopper", 5_000_000, "ppo", ("--backend", "spring")),
    "walker2d": Pretrained("brax/walker2d", 5_000_000, "ppo", ("--backend", "spring")),
    "CartpoleBalance": Pretrained("playground/CartpoleBalance", 5_000_000),
    "PendulumSwingup": Pretrained("playground/PendulumSwingup", 10_000_000),
    "ReacherEasy": Pretrained("playground/ReacherEasy", 5_000_000),
    "CartPole": Pretrained("gymnax/CartPole-v1", 250_000),
}


def make(name: str) -> dict:
    """Trains, evaluates and keeps one policy; returns its card."""
    wanted = POLICIES[name]
    command = [
        "train", wanted.env, "--algorithm", wanted.algorithm, "--steps", str(wanted.steps),
        *wanted.options,
    ]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / name
        _jtrust(*command, "--run-dir", str(run))
        final = PLACE / name
        shutil.rmtree(final, ignore_errors=True)
        step = max(int(path.name) for path in run.iterdir() if path.name.isdecimal())
        final.mkdir(parents=True)
        shutil.copy(run / "config.json", final)
        shutil.copytree(run / str(step), final / str(step),
                        ignore=shutil.ignore_patterns("training"))
        for path in final.rglob("commit_success.txt"):
            path.write_text("The checkpoint is whole.\n")  # Orbax names the folder it wrote into
        rows = (run / "metrics.jsonl").read_text().splitlines()
    found = json.loads(_jtrust("evaluate", str(final), "--episodes", str(EPISODES), "--json"))
    card = {
        **found, "command": "jtrust " + " ".join(command),
        "seconds": round(json.loads(rows[-1])["time/seconds"], 1),
        "device": f"{os.cpu_count()} {platform.machine()} CPUs",
        "versions": versions("jtrust", "jax", "brax", "playground", "gymnax"),
    }
    (final / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def _jtrust(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "jtrust", *arguments], check=True, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    ).stdout


def write_list() -> None:
    """checkpoints/pretrained/README.md, from the cards."""
    lines = [
        "# Policies to take away", "",
        "Made by `python scripts/learning/make_pretrained.py`; a test evaluates each against its "
        "card.", "",
        "    jtrust evaluate checkpoints/pretrained/hopper", "",
        "| name | environment | return | episodes' deviation | steps | seconds | made by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(PLACE.glob("*/card.json")):
        card = json.loads(path.read_text())
        lines.append(
            f"| {path.parent.name} | {card['env']} | {card['return_mean']:.1f} | "
            f"{card['return_std']:.1f} | {card['step']:,} | {card['seconds']:.0f} | "
            f"`{card['command']}` |"
        )
    (PLACE / "README.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *POLICIES], default=[])
    arguments = parser.parse_args()
    for name in arguments.names or POLICIES:
        card = make(name)
        print(f"{name}: {card['return_mean']:.1f} ± {card['return_std']:.1f} after "
              f"{card['step']:,} steps, {card['seconds']:.0f} s", flush=True)
        write_list()
    return 0


if __name__ == "__main__":
    sys.exit(main())
