#!/usr/bin/env python3
"""Kills processes of a run of several again and again, resumes it, and compares its end.

    python scripts/benchmarks/soak_hosts.py [--kills 20] [--processes 2] [--env ENV]

As soak.py, but SIGKILL falls on all processes, on one, or on the first, by chance; those that are
left have to end by themselves, with status 1 and one line, within a minute. Each process has one
device. At the end metrics and every array of the last checkpoint are compared with those of a run
that was never killed, bit for bit. It needs no core of its own for each process.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from scripts.benchmarks.soak import SAVING, differences, rows, size_of
from scripts.launch.local import commands, free_port

# Seconds that those who are left have; JAX needs 30 to find that one is gone.
_MOST = 60.0
SIZE = ["--num-envs", "16", "--unroll-length", "32"]


class Job:
    """The processes of one session.

    Args:
      folder: where they write.
      arguments: of `jtrust`.
      count: how many.
    """

    def __init__(self, folder: Path, arguments: list[str], count: int):
        command = [sys.executable, "-m", "jtrust", *arguments]
        self._errors = [(folder / f"error-{i}").open("w+") for i in range(count)]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        }
        self.processes = [
            subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=error, env=environment)
            for one, error in zip(
                commands(command, count, free_port()), self._errors, strict=True
            )
        ]

    def running(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def kill(self, which: list[int]) -> None:
        """Kills some, and has the others end.

        Raises:
          SystemExit: one did not, or not as it should.
        """
        for i in which:
            self.processes[i].kill()
        end = time.monotonic() + _MOST
        for i, process in enumerate(self.processes):
            try:
                status = process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                raise SystemExit(f"process {i} hangs after a kill of {which}") from None
            said = self._said(i)
            if i not in which and (status != 1 or said.count("jtrust:") != 1):
                raise SystemExit(f"process {i} ended with {status} after {which}:\n{said}")

    def finish(self) -> None:
        for i, process in enumerate(self.processes):
            if status := process.wait():
                raise SystemExit(f"process {i} ended with status {status}:\n{self._said(i)}")

    def end(self) -> None:
        """Leaves nothing behind."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for error in self._errors:
            error.close()

    def _said(self, i: int) -> str:
        self._errors[i].seek(0)
        return self._errors[i].read()


def soak(env: str, kills: int, steps: int, count: int, folder: Path, seed: int) -> dict:
    """Kills and resumes: how often, of whom, and the differences at the end."""
    rng = random.Random(seed)
    train = ["train", env, "--steps", str(steps), *SIZE, *SAVING]
    whole, broken = folder / "whole", folder / "broken"
    found: collections.Counter[str] = collections.Counter()
    job = Job(folder, [*train, "--run-dir", str(whole)], count)
    try:
        job.finish()
        while True:
            if (broken / "config.json").exists():
                found["resumes"] += 1
                job = Job(folder, ["resume", str(broken)], count)
            else:
                job = Job(folder, [*train, "--run-dir", str(broken)], count)
            if found["kills"] >= kills:
                job.finish()
                break
            before = size_of(broken)
            if rng.random() < 0.2:
                time.sleep(rng.uniform(0.0, 15.0))
            else:
                while job.running() and size_of(broken) == before:
                    time.sleep(0.01)
                time.sleep(rng.uniform(0.0, 1.5))
            if not job.running():
                raise SystemExit(f"it was done after {found['kills']} kills: give more --steps")
            name, which = rng.choice((
                ("all", list(range(count))), ("the first", [0]),
                ("another", [rng.randrange(1, count)]),
            ))
            found[name] += 1
            found["while starting"] += size_of(broken) == before
            found["while saving"] += any(broken.glob("*.orbax-checkpoint-tmp*"))
            job.kill(which)
            job.end()
            found["kills"] += 1
    finally:
        job.end()
    return {**found, "iterations": len(rows(whole)), "differences": differences(whole, broken)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--env", default="brax/inverted_pendulum")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(
            given.env, given.kills, given.steps, given.processes, Path(folder), given.seed
        )
    names = ("kills", "all", "the first", "another", "while starting", "while saving", "resumes",
             "iterations", "differences")
    print(f"| processes | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    print(f"| {given.processes} | {' | '.join(str(found.get(name, 0)) for name in names)} |")
    return int(found["differences"] > 0)


if __name__ == "__main__":
    sys.exit(main())
