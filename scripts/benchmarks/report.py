"""What `jtrust report` takes for many runs, and what `jtrust watch` costs a run that goes on.

    python scripts/benchmarks/report.py report [--runs 30] [--iterations 2500] [--settings 6]
    python scripts/benchmarks/report.py watch [--repeats 3] [--steps 400000]

`report` makes runs of noise with the shape of training, and prints seconds and bytes of their page,
the whole command included. `watch` trains the same run with nobody looking and with a page that is
asked for what is new as often as a browser would, in turn, and prints the ratio of their speeds.
"""

from __future__ import annotations

import argparse
import json
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
        "policy/kl_std": 0.1 * kl, "policy/kl_predicted": max_kl * random.uniform(0.8, 1, iterations),
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
        print(f"{runs} runs of {iterations:,} iterations, {settings} settings, "
              f"{size / 1e6:.0f} MB of metrics: {took:.1f} s, {output.stat().st_size / 1e6:.2f} MB")


def _train(place: Path, steps: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "jtrust", "train", "brax/inverted_pendulum", "--backend", "spring",
         "--steps", str(steps), "--run-dir", str(place)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _speed(place: Path) -> float:
    """Environment steps per second behind the first third of a run."""
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    begin, end = rows[len(rows) // 3], rows[-1]
    return (end["step"] - begin["step"]) / (end["time/seconds"] - begin["time/seconds"])


def _watched(place: Path, steps: int) -> float:
    """Trains with somebody watching, from its first row on."""
    run = _train(place, steps)
    while not (place / "metrics.jsonl").exists():
        time.sleep(0.1)
    server = subprocess.Popen(
        [sys.executable, "-m", "jtrust", "watch", str(place)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[2]
        asked = 0
        while run.poll() is None:
            with urllib.request.urlopen(f"{url}content.json") as answer:
                wait = json.load(answer)["live"]["milliseconds"] / 1e3
            asked += 1
            time.sleep(wait)
    finally:
        server.terminate()
        server.wait()
    print(f"  asked {asked} times")
    return _speed(place)


def watch(repeats: int, steps: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        ratios = []
        for i in range(repeats):
            _train(Path(place) / f"alone-{i}", steps).wait()
            alone = _speed(Path(place) / f"alone-{i}")
            watched = _watched(Path(place) / f"watched-{i}", steps)
            ratios.append(watched / alone)
            print(f"alone {alone:,.0f} steps/s, watched {watched:,.0f}: {ratios[-1]:.3f}")
        print(f"watched over alone: median {statistics.median(ratios):.3f}, "
              f"from {min(ratios):.3f} to {max(ratios):.3f}, {repeats} pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    of_report = parts.add_parser("report")
    for name, value in (("runs", 30), ("iterations", 2500), ("settings", 6)):
        of_report.add_argument(f"--{name}", type=int, default=value)
    of_watch = parts.add_parser("watch")
    for name, value in (("repeats", 3), ("steps", 1_500_000)):
        of_watch.add_argument(f"--{name}", type=int, default=value)
    given = vars(parser.parse_args())
    {"report": report, "watch": watch}[given.pop("part")](**given)


if __name__ == "__main__":
    main()
