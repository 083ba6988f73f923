"""What `plan` does once it is where it may use JAX."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any, cast

import jax

from jtrust import checks
from jtrust.environments import Environment, describe, make_env
from jtrust.planning.collectives import count_collectives
from jtrust.planning.compilation import Compiled, compile_iteration, compile_lowered
from jtrust.planning.largest import Largest, Measured, find_largest
from jtrust.planning.launches import Launches, count_launches
from jtrust.planning.plan import Plan, Request
from jtrust.planning.targets import Target, devices_of, find_target
from jtrust.sweeps.program import Program
from jtrust.training import Trainer, make_trainer
from jtrust.training.build import ProgramOptions


def carry_out(request: Request, say: Callable[[str], None]) -> Plan:
    """Compiles what is asked for."""
    target = find_target(request.target)
    devices = _choose(devices_of(target), request.devices, target)
    environment = _environment(request)
    _check_backend(environment, target)
    if request.members > 1 and request.members % len(devices):
        raise checks.BadArgument(
            "members", request.members,
            f"must be a multiple of the number of devices, {len(devices)}",
        )

    def compile_for(num_envs: int | None) -> tuple[Trainer, Compiled]:
        options = ProgramOptions({**request.options, "num_envs": num_envs})
        of_one = devices if request.members == 1 else devices[:1]
        trainer = make_trainer(environment, request.algorithm, devices=of_one, **options)
        many = f"{request.members:,} x " if request.members > 1 else ""
        say(f"compiling {many}{trainer.num_envs:,} environments for {target.name}")
        if request.members == 1:
            return trainer, compile_iteration(trainer)
        start = time.perf_counter()
        program = Program(trainer, (), request.members, tuple(devices))
        return trainer, compile_lowered(program.lower(), start)

    trainer, program = compile_for(request.options.get("num_envs"))
    first = _measured(program, target)
    found = Largest(None, None, 1)
    if request.largest:
        found = find_largest(
            lambda n: _measured(compile_for(n)[1], target), trainer.mesh.size, trainer.num_envs,
            first, target.usable_bytes,
        )
    launches = None
    if target.platform == "gpu" and not program.refused:
        launches = count_launches(program.text, trainer.unroll_length)
    planned = _plan(target, devices, trainer, program, first, found, launches)
    return dataclasses.replace(planned, members=request.members)


def _plan(
    target: Target, devices: list[Any], trainer: Trainer, program: Compiled, first: Measured,
    found: Largest, launches: Launches | None,
) -> Plan:
    return Plan(
        target=target.name,
        device=devices[0].device_kind,
        devices=len(devices),
        env=trainer.environment.name,
        algorithm=trainer.algorithm.name,
        num_envs=trainer.num_envs,
        unroll_length=trainer.unroll_length,
        fits=first.fits,
        memory_bytes=first.memory_bytes,
        memory=program.memory,
        device_memory_bytes=target.memory_bytes,
        usable_memory_bytes=target.usable_bytes,
        refused=program.refused or None,
        largest_num_envs=found.fits,
        smallest_too_large=found.exceeds,
        programs_compiled=found.programs,
        launches=launches.total if launches else None,
        launches_per_step=launches.per_step if launches else None,
        launches_by_phase=launches.by_phase if launches else None,
        uncounted_loops=len(launches.uncounted_loops) if launches else None,
        collectives=None if program.refused else count_collectives(program.text),
        compile_seconds=round(program.seconds, 2),
    )


def _choose(devices: list[Any], count: int | None, target: Target) -> list[Any]:
    if count is None:
        return devices
    count = checks.whole_number("devices", count, example=1)
    if count > len(devices):
        like = f"; name {target.name}:{count}" if target.platform != "tpu" and (
            ":" not in target.name
        ) else ""
        raise checks.BadArgument(
            "devices", count, f"{target.name} has {len(devices)}{like}"
        )
    return devices[:count]


def _environment(request: Request) -> Environment:
    if isinstance(request.env, str):
        return make_env(request.env, **request.env_options)
    if request.env_options:
        raise checks.BadArgument("env_options", request.env_options, "go with a name as env")
    return describe(request.env, type(request.env).__name__)


def _check_backend(environment: Environment, target: Target) -> None:
    """Raises `BadArgument` for Warp's physics, whose kernels are no part of XLA's program."""
    if environment.options.get("backend") != "warp" or target.platform == "cpu":
        return
    remedy = "needs an NVIDIA GPU; use jax" if target.platform == "tpu" else (
        "is compiled by Warp where it runs, so there is nothing to look at here; plan with jax"
    )
    raise checks.BadArgument("backend", "warp", remedy)


def _measured(program: Compiled, target: Target) -> Measured:
    needed = program.memory_bytes
    # XLA lays out a TPU's memory itself, and refuses what does not fit; of a GPU it only knows
    # that the whole is not exceeded.
    fits = not program.refused and (
        target.platform == "tpu" or cast(int, needed) <= target.usable_bytes
    )
    return Measured(fits, needed)


def use_cpu_alone(request: Request) -> None:
    """Has JAX, which has not started, show the CPU and nothing else."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_disable_jit", False)  # a program is what is looked at
    jax.config.update("jax_compilation_cache_dir", None)  # what comes from there took no time
    target = find_target(request.target)
    if target.platform != "cpu":
        return
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags = [f for f in flags if "xla_force_host_platform_device_count" not in f]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    if target.shape:
        jax.config.update("jax_num_cpu_devices", target.shape[0])
    else:
        from jtrust.runs.cpu_devices import use_all_cores

        use_all_cores(request.options.get("num_envs"), request.devices)
