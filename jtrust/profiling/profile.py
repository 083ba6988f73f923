"""Times the parts of an iteration, counts what it computes and holds, and writes a trace of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import jax

from jtrust import checks
from jtrust.algorithms import TRPO, Algorithm
from jtrust.hosts.group import Hosts
from jtrust.paths import user_path
from jtrust.profiling.flops import count_flops, measured_peak
from jtrust.profiling.phases import (
    INFERENCE,
    PHYSICS,
    ROLLOUT,
    STARTS,
    WHOLE,
    Part,
    make_parts,
)
from jtrust.runs.directory import PROFILE
from jtrust.training import Trainer, TrainState, make_trainer
from jtrust.training.build import TrainerOptions, check_names
from jtrust.training.mesh import compiler_options, is_cpu

REST_OF_ROLLOUT, REST = "rollout: what is left", "everything else"


@dataclasses.dataclass(frozen=True)
class Phase:
    """One line of the table: a part of an iteration and what it takes.

    Attributes:
      name: the part.
      seconds: median over the repeats; a difference of medians may come out below zero.
      share: of the whole iteration; all shares add up to 1.
      measured: how the seconds came about.
    """

    name: str
    seconds: float
    share: float
    measured: str


@dataclasses.dataclass(frozen=True)
class Profile:
    """What `profile` found.

    Attributes:
      env, algorithm, num_envs, unroll_length, device, devices: what was profiled, and on what.
      phases: the parts of an iteration, in their order.
      iteration_seconds: the whole iteration.
      steps_per_second: environment steps of training, iterations dispatched one behind the other.
      random_steps_per_second: environment steps of the physics part alone.
      flops: floating-point operations of one iteration.
      flops_per_second: what training achieves.
      peak_flops_per_second: what the devices achieve on a product of matrices.
      memory: bytes, by what holds them.
      trace_dir: where the trace is; of several processes that of the first, in `host0` there.
      perfetto_file: the trace in the form that Perfetto opens.
      traced_steps: steps of each environment in a traced iteration.
    """

    env: str
    algorithm: str
    num_envs: int
    unroll_length: int
    device: str
    devices: int
    phases: list[Phase]
    iteration_seconds: float
    steps_per_second: float
    random_steps_per_second: float
    flops: float
    flops_per_second: float
    peak_flops_per_second: float
    memory: dict[str, int]
    trace_dir: str
    perfetto_file: str
    traced_steps: int


def profile(
    env: Any,
    algorithm: Algorithm | None = None,
    *,
    trace_dir: str | os.PathLike,
    seed: int = 0,
    iterations: int = 5,
    repeats: int = 7,
    **options: Unpack[TrainerOptions],
) -> Profile:
    """Trains a few iterations and takes the next one apart.

    Each part is a compiled program of its own, run on the data that it meets in that iteration;
    all of them and the whole iteration are timed in turn, `repeats` times, and medians taken.
    What the parts do not explain of the whole is `everything else`, so shares add up to 1.

    Args:
      env, algorithm, seed: as for `jtrust.train`.
      trace_dir: where the JAX profiler writes its trace, and `profile.json` what is returned.
      iterations: how many to train first.
      repeats: measurements of each part.
      **options: of `jtrust.make_trainer`.

    Raises:
      BadArgument: an argument that will not do, with what would.
    """
    check_names("profile", options)
    iterations = checks.whole_number("iterations", iterations, maximum=10_000, example=5)
    repeats = checks.whole_number("repeats", repeats, maximum=1000, example=7)
    seed = checks.whole_number("seed", seed, minimum=0)
    user_path("trace_dir", trace_dir)
    trainer = make_trainer(env, TRPO() if algorithm is None else algorithm, **options)
    hosts = Hosts.of(trainer.mesh)
    trace_path = Path(hosts.agreed("trace", lambda: str(_make_directory(trace_dir, hosts.several))))
    hosts.meet(trainer.mesh)
    state, _ = trainer.iterate(trainer.init(jax.random.key(seed)))
    state, seconds = _train(trainer, jax.block_until_ready(state), iterations)
    parts = make_parts(trainer, state)
    medians = _time_in_turn({part.name: part.run for part in parts}, repeats)
    memory = _memory(trainer, state, parts)
    perfetto_file, traced_steps = _trace(trainer, state, parts, trace_path, hosts)
    steps = trainer.steps_per_iteration
    flops = count_flops(trainer.iterate, state)
    used = list(trainer.mesh.devices.flat)
    found = Profile(
        env=trainer.environment.name,
        algorithm=trainer.algorithm.name,
        num_envs=trainer.num_envs,
        unroll_length=trainer.unroll_length,
        device=used[0].device_kind,
        devices=len(used),
        phases=_phases(parts, medians),
        iteration_seconds=medians[WHOLE],
        steps_per_second=steps * iterations / seconds,
        random_steps_per_second=steps / medians[PHYSICS],
        flops=flops,
        flops_per_second=flops * iterations / seconds,
        peak_flops_per_second=hosts.count * measured_peak(
            [device for device in used if device.process_index == hosts.index]
            if hosts.several else used
        ),
        memory=memory,
        trace_dir=str(trace_path),
        perfetto_file=perfetto_file,
        traced_steps=traced_steps,
    )
    if hosts.first:
        _keep(found, trace_path)
    return found


def _keep(found: Profile, path: Path) -> None:
    """Writes a profile beside its trace, for `jtrust report`."""
    temporary = path / f"{PROFILE}.tmp"
    temporary.write_text(json.dumps(dataclasses.asdict(found), indent=2) + "\n")
    os.replace(temporary, path / PROFILE)


def _train(trainer: Trainer, state: TrainState, iterations: int) -> tuple[TrainState, float]:
    start = time.perf_counter()
    for _ in range(iterations):
        state, _ = trainer.iterate(state)
    return jax.block_until_ready(state), time.perf_counter() - start


def _time_in_turn(programs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each program; in turn, so that a machine's moods fall on all."""
    for run in programs.values():
        jax.block_until_ready(run())
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, run in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _phases(parts: list[Part], medians: dict[str, float]) -> list[Phase]:
    whole = medians[WHOLE]
    inside = (STARTS, PHYSICS, INFERENCE)
    rows: list[tuple[str, float, str]] = []
    for part in parts:
        if part.name in (WHOLE, ROLLOUT):
            continue
        seconds = medians[part.name]
        how = "timed alone"
        if part.behind is not None:
            seconds -= medians[part.behind]
            how = "timed with the update up to it, less the lines above"
        rows.append((part.name, seconds, how))
        if part.name == INFERENCE:
            left = medians[ROLLOUT] - sum(medians[name] for name in inside)
            rows.append((REST_OF_ROLLOUT, left, "the rollout alone, less the three lines above"))
    rows.append((REST, whole - sum(seconds for _, seconds, _ in rows),
                 "the whole iteration alone, less all lines above"))
    return [Phase(name, seconds, seconds / whole, how) for name, seconds, how in rows]


def _memory(trainer: Trainer, state: TrainState, parts: list[Part]) -> dict[str, int]:
    (rollout,) = [part for part in parts if part.name == ROLLOUT]
    networks = (state.policy, state.value, state.policy_optimizer, state.value_optimizer)
    found = {
        "environment states": _bytes(state.episodes),
        "networks and optimisers": _bytes(networks),
        "rollout": _bytes(jax.eval_shape(rollout.run)[1]),
    }
    program = jax.jit(trainer.iterate, compiler_options=compiler_options(trainer.mesh))
    analysis = program.lower(state).compile().memory_analysis()
    if analysis is not None:
        found["scratch space of the program"] = analysis.temp_size_in_bytes
    here = next(d for d in trainer.mesh.devices.flat if d.process_index == jax.process_index())
    on_device = here.memory_stats()
    if on_device and "peak_bytes_in_use" in on_device:
        found["device at its highest, profiling included"] = on_device["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024  # what the operating system counts in
    found["process at its highest, profiling included"] = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    )
    return found


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _trace(
    trainer: Trainer, state: TrainState, parts: list[Part], path: Path, hosts: Hosts
) -> tuple[str, int]:
    """Traces two iterations, then each part under its name; of several processes in the first.

    Returns:
      (the file for Perfetto, the steps of each environment in a traced iteration).
    """
    if is_cpu(trainer.mesh):
        # On a CPU each of the thousands of small operations of a physics step is an event, twice
        # over: 100 MB for one iteration of 64 steps. A few steps show the same.
        trainer = dataclasses.replace(trainer, unroll_length=_short_unroll(trainer))
        parts = make_parts(trainer, state)
        for part in parts:
            jax.block_until_ready(part.run())
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    tracing = jax.profiler.trace(str(path), create_perfetto_trace=True, profiler_options=options)
    with tracing if hosts.first else contextlib.nullcontext():
        for i in range(2):
            with jax.profiler.StepTraceAnnotation("iteration", step_num=i):
                state, _ = jax.block_until_ready(trainer.iterate(state))
        for part in parts[2:]:
            with jax.profiler.TraceAnnotation(part.name):
                jax.block_until_ready(part.run())
    if not hosts.first:
        return "", trainer.unroll_length
    found = sorted(path.glob("plugins/profile/*/perfetto_trace.json.gz"))
    return str(found[-1]), trainer.unroll_length


def _short_unroll(trainer: Trainer) -> int:
    """The fewest steps of an iteration, 2 or more, that minibatches can be cut from."""
    algorithm = trainer.algorithm
    counts = [getattr(algorithm, name) for name in algorithm.minibatched]
    counts = [count * algorithm.parts for count in counts if count]
    counts += [trainer.value_fit.minibatches or 1]
    per_device = trainer.num_envs // trainer.mesh.size
    return next(
        (t for t in range(2, trainer.unroll_length)
         if not any(per_device * t % count for count in counts)),
        trainer.unroll_length,
    )


def _make_directory(place: str | os.PathLike, several: bool) -> Path:
    path = user_path("trace_dir", place)
    if several:
        path = path / "host0"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise checks.BadArgument(
            "trace_dir", place, f"cannot be made ({error.strerror}); name another"
        ) from error
    return path
