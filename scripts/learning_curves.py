#!/usr/bin/env python3
"""Learning curves over tasks, algorithms and seeds, beside other trainers; kept as small files.

    python scripts/learning_curves.py run [--tasks hopper ...] [--arms trpo ppo ...] [--seeds 5]
    python scripts/learning_curves.py run --gpu
    python scripts/learning_curves.py report

`run` trains what is not there yet, each run in a process of its own on one core (several side by
side), and can be stopped and started again at any time. An arm's program is compiled for its first
seed on a task and kept for the others, for whom the same time is counted. An arm is an algorithm,
`brax-ppo`, `sb3-trpo` or `rejax-ppo`, with settings behind a colon where they are not the defaults:
`trpo:max_kl=0.02,num_envs=64`. `--gpu` runs ant, halfcheetah and humanoid to brax's own budgets,
three seeds, one after another, without a limit in time. `report` makes tables and plots of what is
there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# This folder itself must not be looked in: its profile.py is named like a standard module.
ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
from scripts.installed import described
from scripts.learning.suite import SUITE

DATA = ROOT / "docs" / "learning"
# Arms without a compiled program, whose starts are all alike.
_NOT_COMPILED = ("sb3-trpo",)
# What runs rejax, which needs other versions than jtrust: a Python that has it.
_PYTHONS = {"rejax-ppo": "REJAX_PYTHON"}


def file_of(folder: Path, task: str, arm: str) -> Path:
    return folder / f"{task}--{arm.replace(':', '--').replace(',', '-')}.json"


def load(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {"runs": {}}


def run_one(task: str, arm: str, seed: int, arguments: argparse.Namespace, core: int) -> float:
    """Trains once and adds the run to its file; returns its seconds."""
    python = os.environ.get(_PYTHONS.get(arm.partition(":")[0], ""), sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.json"
        command = [
            python, "-m", "scripts.learning.worker", task, arm, str(seed),
            str(arguments.seconds), str(arguments.share), str(out),
        ]
        if arguments.workers > 1 and hasattr(os, "sched_setaffinity"):
            command = ["taskset", "-c", str(core), *command]
        begun = time.perf_counter()
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": arguments.programs}
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=environment
        )
        seconds = time.perf_counter() - begun
        if done.returncode or not out.exists():
            raise RuntimeError("\n".join(done.stderr.splitlines()[-5:]))
        found = json.loads(out.read_text())
    path = file_of(arguments.data, task, arm)
    kept = load(path)
    kept |= {"task": task, "env": SUITE[task].env, "arm": arm}
    if kept["runs"] and arm.partition(":")[0] not in _NOT_COMPILED:
        count_compiling(found, next(iter(kept["runs"].values())))
    device = found.pop("device", f"{platform.machine()} CPU")
    kept["runs"][str(seed)] = found | {
        "versions": versions(python, device), "cores": arguments.cores,
    }
    kept["runs"] = dict(sorted(kept["runs"].items(), key=lambda item: int(item[0])))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
    return seconds


def count_compiling(found: dict, first: dict) -> None:
    """Moves the seconds of a run by what its start was shorter than the arm's first run's.

    The start goes to the first point of the curve of training, or for other trainers to the first
    evaluation after training: the same work, but for compiling, which was done for the first run.
    """
    starts = [_start(run) for run in (found, first)]
    if None in starts:
        return
    shorter = starts[1] - starts[0]
    for curve in (found["evaluations"], found.get("train", {"step": [], "seconds": []})):
        curve["seconds"] = [
            round(seconds + shorter, 2) if step else seconds
            for step, seconds in zip(curve["step"], curve["seconds"], strict=True)
        ]
    found["counted_for_compiling"] = round(shorter, 2)


def _start(run: dict) -> float | None:
    curve = run.get("train", run["evaluations"])
    return next(
        (s for step, s in zip(curve["step"], curve["seconds"], strict=True) if step), None
    )


def versions(python: str, device: str) -> str:
    if python != sys.executable:
        return "rejax in an environment of its own"
    names = described("jtrust", "jax", "brax", "playground", "gymnax", "sb3-contrib")
    return f"{names}, {device}, {datetime.date.today()}"


def fill_in(arguments: argparse.Namespace) -> None:
    """Puts in what was not given: tasks, seeds, seconds and workers on a GPU or on a CPU."""
    gpu = arguments.gpu
    given = {
        "tasks": [task.name for task in SUITE.values() if task.gpu == gpu],
        "seeds": 3 if gpu else 5,
        "seconds": 1e6 if gpu else 300.0,
        "workers": 1 if gpu else os.cpu_count(),
    }
    for name, value in given.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def run(arguments: argparse.Namespace) -> int:
    fill_in(arguments)
    wanted = [
        (task, arm, seed)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        for task in arguments.tasks for arm in arguments.arms
    ]
    left = [
        (task, arm, seed) for task, arm, seed in wanted
        if str(seed) not in load(file_of(arguments.data, task, arm))["runs"]
    ]
    print(f"{len(wanted) - len(left)} of {len(wanted)} runs are there", flush=True)
    stop = time.monotonic() + arguments.minutes * 60
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    free = [cores[i % len(cores)] for i in range(arguments.workers)]
    failed = 0
    programs = tempfile.TemporaryDirectory(prefix="jtrust-programs-")
    arguments.programs = arguments.programs or programs.name
    arguments.cores = "one each" if arguments.workers > 1 else f"{len(cores)}"

    def work(job: tuple[str, str, int]) -> float | None:
        if time.monotonic() > stop:
            return None
        core = free.pop()
        try:
            return run_one(*job, arguments, core)
        finally:
            free.append(core)

    with ThreadPoolExecutor(arguments.workers) as pool:
        jobs = {pool.submit(work, job): job for job in left}
        for future in as_completed(jobs):
            task, arm, seed = jobs[future]
            try:
                seconds = future.result()
            except RuntimeError as error:
                failed += 1
                print(f"{task} {arm} seed {seed} failed:\n{error}", flush=True)
                continue
            if seconds is None:
                continue
            found = load(file_of(arguments.data, task, arm))["runs"][str(seed)]["evaluations"]
            print(
                f"{task} {arm} seed {seed}: {found['return'][-1]} after {found['step'][-1]:,} "
                f"steps, {found['seconds'][-1]} s (process {seconds:.0f} s)", flush=True,
            )
    return int(failed > 0)


def report(arguments: argparse.Namespace) -> int:
    from scripts.learning import plots, studies, tables

    data = tables.load_all(arguments.data)
    if arguments.data.resolve() == DATA / "runs":
        text = tables.as_markdown(data)
        if any(":" in arm for arms in data.values() for arm in arms):
            text += "\n## Studies\n\n" + "\n".join(studies.table(data)) + "\n"
        plots.draw(tables.without_studies(data), arguments.data.parent)
    else:  # a folder of studies, whose defaults may be among the other runs
        text = studies.as_markdown(studies.with_defaults(data, DATA / "runs"))
    (arguments.data.parent / "tables.md").write_text(text)
    print(text)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train what is not there yet")
    runs.add_argument("--gpu", action="store_true", help="the tasks for a GPU, 3 seeds in turn")
    runs.add_argument("--tasks", nargs="+", choices=SUITE, help="instead of all for a CPU")
    runs.add_argument("--arms", nargs="+", default=["trpo", "ppo", "brax-ppo"])
    runs.add_argument("--seeds", type=int, help="of each arm (5, on a GPU 3)")
    runs.add_argument("--first-seed", type=int, default=0)
    runs.add_argument("--seconds", type=float, help="of training, at most (300)")
    runs.add_argument("--minutes", type=float, default=1e6, help="begin no run after these")
    runs.add_argument("--workers", type=int, help="runs side by side")
    runs.add_argument("--share", type=float, default=1.0, help="of each task's steps, for studies")
    runs.add_argument("--programs", help="where compiled programs are kept (for this call alone)")
    runs.set_defaults(call=run)
    reports = commands.add_parser("report", help="tables and plots of what is there")
    reports.set_defaults(call=report)
    for command in (runs, reports):
        command.add_argument("--data", type=Path, default=DATA / "runs", help="where runs are kept")
    arguments = parser.parse_args()
    return arguments.call(arguments)


if __name__ == "__main__":
    sys.exit(main())
