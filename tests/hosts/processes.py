"""Runs of several processes on this machine, over loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jtrust.runs.checkpoints import CheckpointReader
from scripts.launch.local import commands, free_port

ROOT = Path(__file__).parents[2]
ENV = "tests.hosts.world:Line"
TRAIN = ("train", ENV, "--num-envs", "8", "--unroll-length", "16", "--compilation-cache", "none",
         "--policy-layers", "8", "--value-layers", "8", "--checkpoint-every", "2")
PER_ITERATION = 128


@dataclasses.dataclass
class Process:
    """One process of a run, what it writes going to files."""

    popen: subprocess.Popen
    out: Path
    err: Path

    def end(self, seconds: float = 120) -> tuple[int, str, str]:
        """(status, standard output, standard error), within so many seconds."""
        status = self.popen.wait(seconds)
        return status, self.out.read_text(), self.err.read_text()


@contextlib.contextmanager
def started(
    *commands: tuple[str, ...], devices: int = 1, environment: dict[str, str] | None = None,
    folders: tuple[Path, ...] = (),
) -> Iterator[list[Process]]:
    """A process for each command, in `folders`; whatever is left at the end is killed, by its
    number."""
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        for i, command in enumerate(commands):
            out, err = Path(folder) / f"{i}.out", Path(folder) / f"{i}.err"
            with out.open("w") as o, err.open("w") as e:
                processes.append(Process(subprocess.Popen(
                    [sys.executable, *command], cwd=folders[i] if folders else ROOT,
                    stdout=o, stderr=e,
                    env=os.environ | {
                        "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
                        + f" --xla_force_host_platform_device_count={devices}",
                    } | (environment or {}),
                ), out, err))
        try:
            yield processes
        finally:
            for process in processes:
                if process.popen.poll() is None:
                    process.popen.kill()
                    process.popen.wait()


def together(
    count: int, *command: str, devices: int = 1, environment: dict[str, str] | None = None
) -> contextlib.AbstractContextManager[list[Process]]:
    """The same command of jtrust's in `count` processes of one run."""
    whole = commands(["-m", "jtrust", *command], count, free_port())
    return started(*map(tuple, whole), devices=devices, environment=environment)


def one(*command: str, devices: int, gloo: bool = False) -> None:
    """The same in one process with as many devices; sums as several processes have them, or XLA's
    own."""
    script = ("-m", "tests.hosts.with_gloo") if gloo else ("-m", "jtrust")
    with started((*script, *command), devices=devices) as (process,):
        status, _, err = process.end()
    assert status == 0, err


def end_all(processes: list[Process], seconds: float = 120) -> list[tuple[int, str, str]]:
    end = time.monotonic() + seconds
    return [process.end(max(end - time.monotonic(), 0.1)) for process in processes]


def wait_for_rows(run_dir: Path, count: int, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    path = run_dir / "metrics.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < end, f"no {count} rows in {path}"
        time.sleep(0.05)


def rows(run_dir: Path) -> list[dict]:
    """Metrics but for times."""
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith("time/")}
        for line in (run_dir / "metrics.jsonl").read_text().splitlines()
    ]


def arrays(run_dir: Path) -> dict[str, np.ndarray]:
    """Of the newest checkpoint, read by one process that knows nothing of others."""
    reader = CheckpointReader(run_dir)
    return reader.read(reader.steps()[-1])


def assert_same_run(a: Path, b: Path) -> None:
    """To the last bit: metrics of every iteration, and every array of the last checkpoint."""
    assert rows(a) == rows(b)
    left, right = arrays(a), arrays(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)
