#!/usr/bin/env python3
"""Learning curves over tasks, algorithms and seeds, beside other trainers; kept as small files.

    python scripts/learning_curves.py run [--tasks hopper ...] [--arms trpo ppo ...] [--seeds 5]
    python scripts/learning_curves.py run --gpu
    python scripts/learning_curves.py report

`run` trains what is not there yet, each run in a process of its own on one core (several side by
side), and can be stopped and started again at any time. An arm's program is compiled for its first
seed on a task and kept for the others, for whom the same time is counted. An arm is an algorithm,
`brax-ppo`, `sb3-trpo` or `rejax-ppo`, with settings behind a colon where they are not the defaults:
`trpo:max_kl=0.02,num_envs=64`. `--together` trains all seeds of an arm of jtrust's as one program,
which takes a part of the time but has no seconds to compare. `--gpu` runs ant, halfcheetah and
humanoid to brax's own budgets, three seeds, one after another, without a limit in time. `report`
makes tables and plots of what is there.
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
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# This folder itself must not be looked in: its profile.py is named like a standard module.
ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
from scripts.benchmarks.installed import described
from scripts.learning.suite import OURS, SUITE

DATA = ROOT / "docs/evidence/learning"
# Arms without a compiled program, whose starts are all alike.
_NOT_COMPILED = ("sb3-trpo",)
# What runs rejax, which needs other versions than jtrust: a Python that has it.
_PYTHONS = {"rejax-ppo": "REJAX_PYTHON"}
# Two seeds of an arm that end at once would each write the file as it was before the other.
_KEEPING = threading.Lock()


def base_of(arm: str) -> str:
    """The algorithm or other trainer of an arm."""
    return arm.partition(":")[0]


def file_of(folder: Path, task: str, arm: str) -> Path:
    return folder / f"{task}--{arm.replace(':', '--').replace(',', '-')}.json"


def load(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {"runs": {}}


def run_one(task: str, arm: str, seeds: range, arguments: argparse.Namespace, core: int) -> float:
    """Trains once, one seed or several together, and adds to the arm's file; returns seconds."""
    python = os.environ.get(_PYTHONS.get(base_of(arm), ""), sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.json"
        command = [python, "-m", "scripts.learning.worker", task, arm, str(seeds[0]),
                   str(arguments.seconds), str(arguments.share), str(out)]
        if arguments.together:
            command = [python, "-m", "scripts.learning.together", task, arm, str(seeds[0]),
                       str(len(seeds)), str(arguments.share), str(out)]
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
    found = found if arguments.together else {str(seeds[0]): found}
    with _KEEPING:
        keep(task, arm, found, python, arguments)
    return seconds


def keep(task: str, arm: str, found: dict, python: str, arguments: argparse.Namespace) -> None:
    """Adds runs, {seed: run}, to the file of their arm; by one thread at a time."""
    path = file_of(arguments.data, task, arm)
    kept = load(path)
    kept |= {"task": task, "env": SUITE[task].env, "arm": arm}
    timed = not arguments.together and base_of(arm) not in _NOT_COMPILED
    for seed, one in found.items():
        if kept["runs"] and timed:
            count_compiling(one, next(iter(kept["runs"].values())))
        device = one.pop("device", f"{platform.machine()} CPU")
        kept["runs"][seed] = one | {
            "versions": versions(python, device), "cores": arguments.cores,
        }
    kept["runs"] = dict(sorted(kept["runs"].items(), key=lambda item: int(item[0])))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, separators=(",", ":")) + "\n")


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
        "tasks": [t.name for t in SUITE.values() if t.gpu == gpu and not t.extra],
        "seeds": 3 if gpu else 5,
        "seconds": 1e6 if gpu else 300.0,
        "workers": 1 if gpu else os.cpu_count(),
    }
    for name, value in given.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def missing(arguments: argparse.Namespace) -> list[tuple[str, str, range]]:
    """What is not there yet: (task, arm, seeds of one process), seed by seed or all together."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    per_process = [seeds] if arguments.together else [range(s, s + 1) for s in seeds]
    return [
        (task, arm, some)
        for some in per_process for task in arguments.tasks for arm in arguments.arms
        if not {str(seed) for seed in some}
        <= load(file_of(arguments.data, task, arm))["runs"].keys()
    ]


def run(arguments: argparse.Namespace) -> int:
    fill_in(arguments)
    if arguments.together and (peers := sorted(set(map(base_of, arguments.arms)) - set(OURS))):
        print(f"--together: {peers[0]} cannot; only {', '.join(OURS)}", file=sys.stderr)
        return 2
    left = missing(arguments)
    wanted = len(arguments.tasks) * len(arguments.arms) * arguments.seeds
    print(f"{wanted - sum(len(x[2]) for x in left)} of {wanted} runs are there", flush=True)
    stop = time.monotonic() + arguments.minutes * 60
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    free = [cores[i % len(cores)] for i in range(arguments.workers)]
    failed = 0
    programs = tempfile.TemporaryDirectory(prefix="jtrust-programs-")
    arguments.programs = arguments.programs or programs.name
    arguments.cores = "one each" if arguments.workers > 1 else f"{len(cores)}"

    def work(job: tuple[str, str, range]) -> float | None:
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
            task, arm, seeds = jobs[future]
            try:
                seconds = future.result()
            except RuntimeError as error:
                failed += 1
                print(f"{task} {arm} seed {seeds[0]} failed:\n{error}", flush=True)
                continue
            if seconds is None:
                continue
            runs = load(file_of(arguments.data, task, arm))["runs"]
            for seed in seeds:
                found = runs[str(seed)]["evaluations"]
                print(
                    f"{task} {arm} seed {seed}: {found['return'][-1]} after "
                    f"{found['step'][-1]:,} steps, {found['seconds'][-1]} s "
                    f"(process {seconds:.0f} s)", flush=True,
                )
    return int(failed > 0)


def report(arguments: argparse.Namespace) -> int:
    from scripts.learning import batch_sizes, plots, studies, tables

    data = tables.load_all(arguments.data)
    if arguments.data.resolve() == DATA / "runs":
        text = tables.as_markdown(data)
        if any(":" in arm for arms in data.values() for arm in arms):
            text += "\n## Studies\n\n" + "\n".join(studies.table(data)) + "\n"
        plots.draw(tables.without_studies(data), arguments.data.parent)
    elif arguments.data.resolve() == DATA / "batch-size" / "runs":
        defaults = tables.load_all(DATA / "runs")
        text = batch_sizes.as_markdown(data, defaults)
        plots.draw_counts(batch_sizes.by_count(data, defaults), arguments.data.parent)
    else:  # a folder of studies, whose defaults may be among the other runs
        text = studies.as_markdown(data, DATA / "runs")
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
    runs.add_argument(
        "--together", action="store_true", help="all seeds of an arm as one program, by vmap"
    )
    for command in (runs, reports):
        command.add_argument("--data", type=Path, default=DATA / "runs", help="where runs are kept")
    arguments = parser.parse_args()
    return arguments.call(arguments)


if __name__ == "__main__":
    sys.exit(main())
