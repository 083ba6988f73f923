"""What `jtrust report` takes for many runs, and what `jtrust watch` costs a run that goes on.

    python scripts/benchmarks/report.py report [--runs 30] [--iterations 2500] [--settings 6]
    python scripts/benchmarks/report.py watch [--pairs 8] [--seconds 6]

`report` makes runs of noise with the shape of training, and prints seconds and bytes of their page,
the whole command included. `watch` trains a run, for some seconds with its page asked for what is
new as often as a browser would, for some with nobody looking, in turn, and prints the ratio of the
run's speeds and what the watching process used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

_CONFIG = {
    "env": "brax/ant", "env_options": {}, "algorithm": "trpo", "network": {"min_std": 0.05},
    "num_envs": 64, "unroll_length": 64, "total_steps": 10**7, "checkpoint_every": 250,
    "action": {"kind": "box", "size": 8, "low": -1.0, "high": 1.0}, "jtrust": "0.1.0", "format": 1,
}


def make_run(path: Path, seed: int, max_kl: float, iterations: int) -> None:
    """A run directory with the metrics of a training that never was."""
    random = np.random.default_rng([seed, int(1e4 * max_kl)])
    path.mkdir(parents=True)
    config = _CONFIG | {"seed": seed, "hyperparameters": {"max_kl": max_kl, "damping": 0.1}}
    (path / "config.json").write_text(json.dumps(config))
    at = np.arange(1, iterations + 1)
    grown = 3000 * (1 - np.exp(-at / (600 + 200 * random.random())))
    kl = max_kl * random.uniform(0.7, 1.0, iterations)
    columns = {
        "step": 4096 * at, "iteration": at, "environment/nonfinite": 0 * at,
        "environment/overflow": 0 * at, "episode/count": random.poisson(5, iterations),
        "episode/length": grown / 3, "episode/return": grown + random.normal(0, 60, iterations),
        "observation/drift_kl": 1e-13 * random.random(iterations), "observation/skipped": 0 * at,
        "policy/accepted": random.random(iterations) > 0.02,
        "policy/cg_residual": 10 ** random.normal(-3, 0.5, iterations),
        "policy/entropy": 11 - 6 * at / iterations + random.normal(0, 0.05, iterations),
        "policy/kl": kl, "policy/kl_limit": max_kl + 0 * at, "policy/kl_mean": 0.9 * kl,
        "policy/kl_std": 0.1 * kl,
        "policy/kl_predicted": max_kl * random.uniform(0.8, 1, iterations),
        "policy/skipped": 0 * at, "policy/step_scale": random.choice([1, 0.9, 0.81], iterations),
        "policy/surrogate_gain": random.uniform(0.01, 0.03, iterations),
        "value/explained_variance": 1 - np.exp(-at / 100) + random.normal(0, 0.02, iterations),
        "value/loss": 10 ** random.normal(-2, 0.1, iterations), "value/skipped": 0 * at,
        "value/targets_skipped": 0 * at, "time/seconds": 0.5 * at,
        "time/steps_per_second": random.normal(8000, 300, iterations),
    }
    rows = zip(*(np.asarray(x, float).tolist() for x in columns.values()), strict=True)
    with open(path / "metrics.jsonl", "w") as file:
        for row in rows:
            file.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")


def report(runs: int, iterations: int, settings: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        for i in range(runs):
            max_kl = 0.005 * (1 + i % settings)
            make_run(Path(place) / f"run-{i}", i // settings, max_kl, iterations)
        size = sum(p.stat().st_size for p in Path(place).glob("*/metrics.jsonl"))
        output = Path(place) / "report.html"
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "jtrust", "report", place, "--output", str(output)], check=True,
            stdout=subprocess.DEVNULL,
        )
        took = time.perf_counter() - start
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = children.ru_utime + children.ru_stime
        print(f"{runs} runs of {iterations:,} iterations, {settings} settings, "
              f"{size / 1e6:.0f} MB of metrics: {took:.1f} s ({used:.1f} s of processors), "
              f"{output.stat().st_size / 1e6:.2f} MB")


def _newest(place: Path) -> tuple[float, float]:
    """(environment steps, seconds) of a run's newest row."""
    text = (place / "metrics.jsonl").read_text()
    row = json.loads(text[: text.rindex("\n")].splitlines()[-1])
    return row["step"], row["time/seconds"]


def _cpu_seconds(process: subprocess.Popen) -> float:
    """What a process has used so far (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _window(place: Path, url: str | None, seconds: float) -> float:
    """Environment steps per second of a run while a page at `url` is asked, or nothing is."""
    (step, at), end = _newest(place), time.monotonic() + seconds
    while time.monotonic() < end:
        wait = seconds
        if url is not None:
            with urllib.request.urlopen(f"{url}content.json") as answer:
                wait = json.load(answer)["live"]["milliseconds"] / 1e3
        time.sleep(max(0.0, min(wait, end - time.monotonic())))
    last_step, last = _newest(place)
    return (last_step - step) / (last - at)


def watch(pairs: int, seconds: int) -> None:
    """Windows of one run with and without somebody watching, in turn."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        start = [sys.executable, "-m", "jtrust"]
        run = subprocess.Popen(
            [*start, "train", "brax/inverted_pendulum", "--backend", "spring", "--steps",
             str(10**9), "--run-dir", str(place)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        stack.callback(_end, run)
        while not (place / "metrics.jsonl").exists():
            time.sleep(0.1)
        server = subprocess.Popen(
            [*start, "watch", str(place)], stdout=subprocess.PIPE, text=True
        )
        stack.callback(_end, server)
        assert server.stdout is not None
        url = server.stdout.readline().split()[2]
        _window(place, url, seconds)
        ratios, used = [], _cpu_seconds(server)
        for _ in range(pairs):
            ratios.append(_window(place, url, seconds) / _window(place, None, seconds))
            print(f"watched over alone: {ratios[-1]:.3f}", flush=True)
        used = (_cpu_seconds(server) - used) / (pairs * seconds)
        print(f"watched over alone: median {statistics.median(ratios):.3f}, from "
              f"{min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs of {seconds} s; the watching "
              f"process used {used:.1%} of a core, of {_newest(place)[0]:,} steps in the end")


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    of_report = parts.add_parser("report")
    for name, value in (("runs", 30), ("iterations", 2500), ("settings", 6)):
        of_report.add_argument(f"--{name}", type=int, default=value)
    of_watch = parts.add_parser("watch")
    for name, value in (("pairs", 8), ("seconds", 6)):
        of_watch.add_argument(f"--{name}", type=int, default=value)
    given = vars(parser.parse_args())
    {"report": report, "watch": watch}[given.pop("part")](**given)


if __name__ == "__main__":
    main()
