#!/usr/bin/env python3
"""How fast jtrust is: ratios of two things timed in turn, in one table and as JSON.

    python scripts/benchmark.py [--short | --gpu] [--part NAME ...] [--json FILE]

    limit      training rate over the rate of random actions in the same batched environments
    fisher     a Fisher-vector product against a gradient, and against reverse-over-reverse
    states     random actions with states of what is read over states of all that an engine keeps
    seeds      several seeds one after another over the same in one program by vmap
    brax       steady rate of PPO over that of brax's PPO on the same work
    sb3        the TRPO policy update over sb3-contrib's (needs the extra `comparisons`)
    memory     what the program needs at its highest over the bytes that it must hold
    start      seconds from process start to the first iteration, cold and warm
    whole      PPO over brax's PPO, whole processes of 786k steps
    until      time to a return of 950 on inverted_pendulum, beside brax's published settings

Each figure is the median of the ratios of adjacent measurements, with the smallest and largest.
The full form repeats everything 5 to 7 times; `--short` leaves out the last two parts, one start
and no whole runs, unless --part asks for them (once); `--gpu` takes the environments and their
numbers for a GPU (2048, 8192).
Parts that run in this process see the devices that JAX shows: one CPU device, or as many as
`--devices` says.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

# This folder itself must not be looked in: its profile.py is named like a standard module.
sys.path[0] = str(Path(__file__).resolve().parents[1])
from scripts.benchmarks import comparisons, microbenchmarks, processes
from scripts.benchmarks.installed import described, versions
from scripts.benchmarks.timing import Row

PACKAGES = ("jtrust", "jax", "jaxlib", "brax", "flax", "optax", "torch", "sb3-contrib")
# Each part, and the repeats of its long and its short form; 0 for none.
PARTS: dict[str, tuple[Callable[[bool, int], Iterable[Row]], int, int]] = {
    "limit": (microbenchmarks.limit, 7, 5),
    "fisher": (microbenchmarks.fisher, 7, 5),
    "states": (microbenchmarks.states, 7, 5),
    "seeds": (microbenchmarks.seeds, 7, 5),
    "brax": (comparisons.brax, 7, 5),
    "sb3": (comparisons.sb3, 7, 5),
    "memory": (processes.memory, 2, 1),
    "start": (processes.start, 5, 1),
    "whole": (processes.whole, 5, 0),
    "until": (processes.until, 5, 0),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, help="only these")
    parser.add_argument("--json", type=Path, help="also write everything here")
    parser.add_argument("--gpu", action="store_true", help="the form for a GPU")
    parser.add_argument("--short", action="store_true", help="fewer repeats")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices to use (1)")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    device = jax.devices()[0]
    print(f"{device.device_kind} x {len(jax.devices())}, {os.cpu_count()} CPUs; "
          + described(*PACKAGES) + "\n")
    print("| part | measured | ratio | smallest to largest | repeats | detail |\n"
          "| --- | --- | --- | --- | --- | --- |", flush=True)
    rows: list[Row] = []
    spent: list[str] = []
    start = time.perf_counter()
    for part in arguments.part or PARTS:
        run, repeats, few = PARTS[part]
        if arguments.short or arguments.gpu:
            repeats = max(few, 1) if arguments.part else few
        if not repeats:
            continue
        begun = time.perf_counter()
        for row in run(arguments.gpu, repeats):
            rows.append(row)
            if row.ratios:
                spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
                print(f"| {part} | {row.name} | {statistics.median(row.ratios):.2f} | {spread} | "
                      f"{len(row.ratios)} | {row.detail} |", flush=True)
            else:
                print(f"| {part} | {row.name} | - | - | - | {row.detail} |", flush=True)
        spent.append(f"{part} {time.perf_counter() - begun:.0f}")
    print(f"\n{time.perf_counter() - start:.0f} s in all: {', '.join(spent)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "device": device.device_kind, "devices": len(jax.devices()), "cpus": os.cpu_count(),
            "versions": versions(*PACKAGES), "rows": [row.__dict__ for row in rows],
        }, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
