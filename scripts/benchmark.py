#!/usr/bin/env python3
"""How fast jtrust is: ratios of two things timed in turn, in one table and as JSON.

    python scripts/benchmark.py [--part NAME ...] [--json FILE] [--gpu]

    limit      training rate over the rate of random actions in the same batched environments
    fisher     a Fisher-vector product against a gradient, and against reverse-over-reverse

`--gpu` takes the environments and their numbers for a GPU (2048, 8192). Each figure is the median
of the ratios of adjacent measurements, with their smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent))
from benchmarks import microbenchmarks
from benchmarks.timing import Row

PARTS: dict[str, Callable[[bool], Iterable[Row]]] = {
    "limit": microbenchmarks.limit,
    "fisher": microbenchmarks.fisher,
}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("jtrust", "jax", "jaxlib", "brax", "flax", "optax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, help="only these")
    parser.add_argument("--json", type=Path, help="also write everything here")
    parser.add_argument("--gpu", action="store_true", help="the form for a GPU")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    print(f"{device.device_kind} x {len(jax.devices())}, {os.cpu_count()} CPUs; "
          + ", ".join(f"{k} {v}" for k, v in versions().items()) + "\n")
    print("| part | measured | ratio | smallest to largest | detail |\n"
          "| --- | --- | --- | --- | --- |", flush=True)
    rows: list[Row] = []
    start = time.perf_counter()
    for part in arguments.part or PARTS:
        for row in PARTS[part](arguments.gpu):
            rows.append(row)
            if row.ratios:
                spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
                print(f"| {part} | {row.name} | {statistics.median(row.ratios):.2f} | {spread} | "
                      f"{row.detail} |", flush=True)
            else:
                print(f"| {part} | {row.name} | - | - | {row.detail} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s in all")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "device": device.device_kind, "devices": len(jax.devices()), "cpus": os.cpu_count(),
            "versions": versions(), "rows": [row.__dict__ for row in rows],
        }, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
