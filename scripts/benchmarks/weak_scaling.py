#!/usr/bin/env python3
"""Weak scaling over processes of this machine: docs/evidence/plan/processes.md.

    python scripts/benchmarks/weak_scaling.py [--repeats 3] [--env brax/hopper] [--backend spring]

The same run with 1, 2 and 4 processes of one CPU device each, as many environments for each, and
one process with two devices, in turn. Seconds are the median of an iteration's, from metrics.jsonl,
but for the first ones. With more processes than cores an iteration takes at least processes / cores
as long, which the last column divides by.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# From here, wherever this is called: modules of scripts/ are found by their whole names.
ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)
from scripts.benchmarks.installed import described
from scripts.launch.local import commands, free_port

# (processes, devices of each).
SHAPES = ((1, 1), (1, 2), (2, 1), (4, 1))
ENVS, UNROLL, ITERATIONS, SKIPPED = 256, 64, 16, 4
PAGE = ROOT / "docs/evidence/plan/processes.md"


def seconds_of(processes: int, devices: int, task: list[str]) -> float:
    """Of an iteration of `ENVS` environments for each device."""
    total = processes * devices
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [
            sys.executable, "-m", "jtrust", "train", *task, "--num-envs", str(ENVS * total),
            "--unroll-length", str(UNROLL), "--devices", str(total), "--run-dir", str(run_dir),
            "--steps", str(ENVS * total * UNROLL * ITERATIONS), "--checkpoint-every", "1000000",
            # One update for all sizes: larger rollouts have other defaults.
            "--max-kl", "0.01", "--value-rounds", "1", "--value-solver", "adam",
            "--value-minibatches", "32",
        ]
        all_of_them = commands(command, processes, free_port()) if processes > 1 else [command]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        started = [
            subprocess.Popen(one, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL) for one in all_of_them
        ]
        if any([process.wait() for process in started]):  # noqa: C419 - waits for all
            raise SystemExit(f"{processes} processes failed; try: {' '.join(command)}")
        lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    times = [json.loads(line)["time/seconds"] for line in lines]
    return statistics.median(
        b - a for a, b in zip(times[SKIPPED:], times[SKIPPED + 1:], strict=False)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--env", default="brax/hopper")
    parser.add_argument("--backend", default="spring")
    given = parser.parse_args()
    task = [given.env, "--backend", given.backend]
    found: dict[tuple[int, int], list[float]] = {shape: [] for shape in SHAPES}
    for _ in range(given.repeats):
        for shape in SHAPES:
            found[shape].append(seconds_of(*shape, task))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        "# Processes of one machine", "",
        f"Made by `python scripts/benchmarks/weak_scaling.py`: {given.env}, {given.backend}, TRPO, "
        f"{ENVS} environments x {UNROLL} steps for each device, {cores} cores, "
        f"{described('jax', 'brax')}; in turn, {given.repeats} times. Processes speak by gloo over "
        "loopback.", "",
        "| processes | devices of each | seconds an iteration | over one | the same, by each "
        "core's share |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (processes, devices), seconds in found.items():
        ratios = [a / b for a, b in zip(seconds, found[1, 1], strict=True)]
        share = max(processes * devices / (cores or 1), 1.0)
        lines.append(
            f"| {processes} | {devices} | {statistics.median(seconds):.3f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
            f"{statistics.median(ratios) / share:.2f} |"
        )
    text = "\n".join(lines) + "\n"
    PAGE.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
