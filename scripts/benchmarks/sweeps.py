#!/usr/bin/env python3
"""Many runs as one program, measured: time.md and launches.md of docs/evidence/sweeps/.

    python scripts/benchmarks/sweeps.py --part time        # whole processes on this machine
    python scripts/benchmarks/sweeps.py --part launches    # compiled for an H100, not run

`time`: seeds of TRPO on inverted_pendulum in one sweep, beside as many processes in turn and two
at a time; start, compiling and checkpoints included, JAX's compilation cache left out. `launches`
needs the extra plan-gpu.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(ROOT)
from scripts.benchmarks.installed import described

PAGES = ROOT / "docs/evidence/sweeps"
SEEDS, STEPS = 8, 500_000
ENVIRONMENT = "brax/inverted_pendulum"
MEMBERS = (1, 8, 64)


def _started(*arguments: str, core: int | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "jtrust", *arguments, "--compilation-cache", "none"]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def _all_well(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if status := process.wait():
            raise SystemExit(f"a run ended with status {status}")


def _run(seed: int, folder: str) -> list[str]:
    return ["train", ENVIRONMENT, "--steps", str(STEPS), "--seed", str(seed), "--run-dir",
            f"{folder}/{seed}"]


def times() -> str:
    """Seconds of the three ways, and their ratios."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        _all_well([_started(
            "sweep", ENVIRONMENT, "--seeds", str(SEEDS), "--steps", str(STEPS), "--run-dir",
            f"{folder}/sweep",
        )])
        seconds["one sweep"] = time.perf_counter() - begun
        begun = time.perf_counter()
        for seed in range(SEEDS):
            _all_well([_started(*_run(seed, f"{folder}"))])
        seconds["processes in turn, each on all cores"] = time.perf_counter() - begun
        begun = time.perf_counter()
        paired = Path(folder) / "pairs"
        for seed in range(0, SEEDS, 2):
            _all_well([
                _started(*_run(seed + i, str(paired)), core=i) for i in range(2)
            ])
        seconds["processes two at a time, one core each"] = time.perf_counter() - begun
        shutil.rmtree(paired, ignore_errors=True)
    sweep = seconds["one sweep"]
    lines = [
        f"{SEEDS} seeds of TRPO on {ENVIRONMENT}, {STEPS:,} steps each; {os.cpu_count()} CPUs, "
        f"{described('jtrust', 'jax', 'brax')}.", "",
        "| how | seconds, whole processes | over the sweep |", "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {s:.0f} | {s / sweep:.2f} |" for name, s in seconds.items()]
    return "\n".join(lines) + "\n"


def launches() -> str:
    """What an iteration launches on an H100, by members."""
    found = {}
    for members in MEMBERS:
        command = [
            sys.executable, "-m", "jtrust", "plan", ENVIRONMENT, "--backend", "spring", "--target",
            "h100", "--num-envs", "4096", "--members", str(members), "--no-largest", "--json",
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        found[members] = json.loads(said.stdout)
    lines = [
        f"TRPO on {ENVIRONMENT} (spring), 4096 environments x 64 steps each, one H100: compiled, "
        f"not run; {described('jtrust', 'jax', 'brax')}.", "",
        "| members | launches an iteration | of one member | memory, GB | compiled in, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {n} | {one['launches']:,} | {one['launches'] / n:,.0f} | "
        f"{one['memory_bytes'] / 1e9:.2f} | {one['compile_seconds']:.0f} |"
        for n, one in found.items()
    ]
    return "\n".join(lines) + "\n"


PARTS = {"time": times, "launches": launches}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    PAGES.mkdir(parents=True, exist_ok=True)
    for part in given.part:
        text = PARTS[part]()
        (PAGES / f"{part}.md").write_text(text)
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
