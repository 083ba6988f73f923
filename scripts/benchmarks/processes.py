"""Parts that time whole processes, compilation and imports included."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks.timing import Row, ratios

ROOT = Path(__file__).parents[2]
DEVICES = 1 if os.cpu_count() == 1 else 2


def _child(*arguments: object) -> tuple[float, dict]:
    """Seconds and result of one child process; JAX's compilation cache is not used."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks.child", *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {process.stderr[-2000:]}")
    return seconds, json.loads(process.stdout.splitlines()[-1])


def whole(gpu: bool, repeats: int) -> Iterator[Row]:
    """jtrust PPO over brax PPO on the same work, from process start to the end of 786k steps."""
    if gpu:
        return
    work = ("hopper", "spring", 512, 786_432)
    # Without a word from the user brax trains on one CPU device; `jtrust train` on one per core.
    labels = {1: "one CPU device each", DEVICES: "jtrust as its command line"}
    ours: dict[int, list[float]] = {devices: [] for devices in labels}
    theirs = []
    for _ in range(repeats):
        for devices, seconds in ours.items():
            seconds.append(_child("equal-work", "jtrust", *work, devices)[0])
        theirs.append(_child("equal-work", "brax", *work, 1)[0])
    for devices, seconds in ours.items():
        yield Row(
            f"jtrust PPO over brax PPO, whole processes, hopper spring, 786k steps, "
            f"{labels[devices]}",
            ratios(theirs, seconds),
            f"{statistics.median(seconds):.1f} s and {statistics.median(theirs):.1f} s",
        )


def until(gpu: bool, repeats: int) -> Iterator[Row]:
    """Time to a return of 950 on inverted_pendulum: defaults, and brax's published settings."""
    if gpu:
        return
    seconds: dict[str, list[float]] = {"brax": [], "trpo": [], "ppo": []}
    steps: dict[str, int] = {}
    for _ in range(repeats):
        for trainer in seconds:
            taken, found = _child("until", 950, trainer, "inverted_pendulum")
            seconds[trainer].append(taken)
            steps[trainer] = found["steps"]
    for trainer in ("trpo", "ppo"):
        yield Row(
            f"time to 950, inverted_pendulum, whole processes, {trainer} over brax PPO",
            ratios(seconds[trainer], seconds["brax"]),
            f"{statistics.median(seconds[trainer]):.1f} s ({steps[trainer]:,} steps) and "
            f"{statistics.median(seconds['brax']):.1f} s ({steps['brax']:,} steps)",
        )


def memory(gpu: bool, repeats: int) -> Iterator[Row]:
    """What the compiled iteration needs at its highest over the bytes that it has to hold."""
    # One environment where time is short: most of it goes into compiling.
    for name, backend, envs in (("hopper", "spring", 2048), ("ant", "spring", 2048))[:repeats]:
        _, found = _child("memory", name, backend, envs)
        yield Row(
            f"memory of the program over what it must hold, TRPO, {name} {backend}, "
            f"{envs} environments",
            [found["program"] / found["held"]],
            f"{found['program'] / 1e6:.0f} MB and {found['held'] / 1e6:.0f} MB; "
            f"the process {found['process'] / 1e6:.0f} MB, compiling included",
        )


def start(gpu: bool, repeats: int) -> Iterator[Row]:
    """From process start to the first finished iteration, without and with compiled programs."""
    cold, warm = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as place:
            cold.append(_first_iteration(Path(place) / "cache", Path(place) / "cold"))
            warm.append(_first_iteration(Path(place) / "cache", Path(place) / "warm"))
    yield Row(
        "start to first iteration, inverted_pendulum, warm cache over cold",
        ratios(warm, cold),
        f"{statistics.median(warm):.1f} s ({min(warm):.1f} to {max(warm):.1f}) and "
        f"{statistics.median(cold):.1f} s",
    )


def _first_iteration(cache: Path, run: Path) -> float:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "jtrust", "train", "brax/inverted_pendulum", "--steps", "100000",
         "--run-dir", str(run), "--compilation-cache", str(cache)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    rows = run / "metrics.jsonl"
    while process.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    if process.wait():
        raise RuntimeError("jtrust train failed")
    return seconds
