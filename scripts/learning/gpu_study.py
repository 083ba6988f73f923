"""The study of batch sizes on a GPU: many programs side by side, each of all seeds of an arm.

    python -m scripts.learning.gpu_study [--minutes 8] [--workers 10] [--only WORD ...]

Compiling takes most of the time of runs as short as these, and one does not fill the device: so
several run at once, and what their files say of seconds is of no use. Runs start in the order
below; when the minutes are over, those that still run are ended, and what they have evaluated by
then is kept. Files as of `learning_curves.py`; `learning_curves.py report --data` makes the tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts import learning_curves
from scripts.learning.suite import OURS, SUITE


@dataclasses.dataclass(frozen=True)
class Job:
    """All seeds of an arm in one program; other trainers' seeds one process each.

    Attributes:
      task, arm: as in `learning_curves.py`.
      millions: environment steps.
      seeds: how many, from `first`.
    """

    task: str
    arm: str
    millions: float
    seeds: int = 5
    first: int = 0

    @property
    def share(self) -> float:
        return self.millions * 1e6 / SUITE[self.task].steps


def _counts(task: str, millions: float, *counts: int, seeds: int = 5) -> list[Job]:
    """TRPO and PPO with more environments than 64, after a multiple of the steps of 64."""
    times = {1024: 2, 4096: 4, 16384: 8}
    return [
        Job(task, f"{name}:num_envs={n}", times[n] * millions, seeds)
        for n in counts for name in ("trpo", "ppo")
    ]


JOBS = (
    # What takes longest first.
    Job("humanoid-gpu", "brax-ppo", 30, 1), Job("humanoid-gpu", "trpo:num_envs=4096", 30, 2),
    Job("humanoid-gpu", "ppo:num_envs=4096", 30, 2),
    Job("ant-gpu", "brax-ppo", 30, 1), Job("ant-gpu", "trpo:num_envs=4096", 30, 2),
    Job("ant-gpu", "ppo:num_envs=4096", 30, 2),
    Job("CheetahRun", "trpo:num_envs=4096", 10, 3), *_counts("walker2d", 2, 4096),
    *_counts("ant-spring", 2, 4096), Job("CheetahRun", "ppo:num_envs=4096", 10, 3),
    *_counts("hopper", 2, 4096),
    Job("walker2d", "brax-ppo", 8, 1), Job("hopper", "brax-ppo", 8, 1),
    *_counts("ant-spring", 2, 1024),
    Job("ant-spring", "brax-ppo", 8, 1),
    *_counts("PendulumSwingup", 2.5, 4096), *_counts("CartpoleSwingup", 2.5, 4096),
    *_counts("inverted_double_pendulum", 2, 4096, 1024), *_counts("reacher", 2, 4096, 1024),
    *_counts("walker2d", 2.5, 1024), *_counts("hopper", 2.5, 1024),
    *_counts("hopper", 2, 16384, seeds=3), *_counts("walker2d", 2, 16384, seeds=3),
    *_counts("PendulumSwingup", 2.5, 1024), *_counts("CartpoleSwingup", 2.5, 1024),
    *_counts("CheetahRun", 2.5, 1024, seeds=3),
    Job("ant-spring", "trpo", 2), Job("ant-spring", "ppo", 2),
)


class Study:
    """Runs jobs side by side until they are done or time is over."""

    def __init__(self, data: Path, seconds: float):
        self.data, self.stop = data, time.monotonic() + seconds
        self._keeping = threading.Lock()

    def run(self, job: Job) -> None:
        if self._left() < 20:
            return
        base = learning_curves.base_of(job.arm)
        with tempfile.TemporaryDirectory() as folder:
            out, log = Path(folder) / "run.json", Path(folder) / "log"
            of_ours = [str(job.first), str(job.seeds), str(job.share)]
            of_others = [str(job.first), "1e6", str(job.share)]
            module, numbers = ("together", of_ours) if base in OURS else ("worker", of_others)
            command = [sys.executable, "-m", f"scripts.learning.{module}", job.task, job.arm,
                       *numbers, str(out)]
            begun = time.monotonic()
            with log.open("w") as stream:
                process = subprocess.Popen(
                    command, cwd=learning_curves.ROOT, stdout=stream, stderr=stream,
                    start_new_session=True,
                )
                try:
                    status = process.wait(max(self._left(), 1))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    status = process.wait()
            found = json.loads(out.read_text()) if out.exists() else {}
            if found and base not in OURS:
                found = {str(job.first): found}
            last = [one["evaluations"]["return"][-1] for one in found.values()]
            steps = next((one["evaluations"]["step"][-1] for one in found.values()), 0)
            print(f"{job.task} {job.arm}: {last} after {steps:,} steps, status {status}, "
                  f"{time.monotonic() - begun:.0f} s", flush=True)
            if status not in (0, -signal.SIGKILL):
                print(log.read_text()[-800:], flush=True)
        if found:
            with self._keeping:
                learning_curves.keep(job.task, job.arm, found, sys.executable, argparse.Namespace(
                    data=self.data, together=True, cores="a GPU, others beside it",
                ))

    def _left(self) -> float:
        return self.stop - time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="end what runs then")
    parser.add_argument("--workers", type=int, default=10, help="programs side by side")
    parser.add_argument("--only", nargs="+", default=[""], help="jobs whose name holds one")
    parser.add_argument(
        "--data", type=Path, default=learning_curves.DATA / "batch-size" / "runs",
        help="where runs are kept",
    )
    given = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    study = Study(given.data, 60 * given.minutes)
    jobs = [j for j in JOBS if any(word in f"{j.task} {j.arm}" for word in given.only)]
    with ThreadPoolExecutor(given.workers) as pool:
        list(pool.map(study.run, jobs))


if __name__ == "__main__":
    main()
