"""How a run would be on devices that are not here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Unpack

from jtrust import checks
from jtrust.algorithms import TRPO, Algorithm
from jtrust.planning.targets import find_target
from jtrust.training.build import ProgramOptions, check_names

NOT_RUN = "compiled, not run"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `plan` found of one iteration's program: compiled, not run.

    Attributes:
      target: the devices, as they were named.
      device: what one of them calls itself.
      devices: how many.
      env, algorithm, num_envs, unroll_length: what was compiled.
      fits: whether the program fits a device's memory.
      memory_bytes: what it holds on each device at its highest: arguments, outputs and
        temporaries, less what outputs share with arguments. None where XLA refused the program
        and did not say how much it would have needed.
      memory: those four, bytes each; empty where XLA refused.
      device_memory_bytes: of one device.
      usable_memory_bytes: what a program may have of it.
      refused: XLA's reason, where it refused.
      largest_num_envs: the largest number of environments tried that fits; None where none does,
        or it was not asked for.
      smallest_too_large: the smallest number tried that does not fit; None where all do.
      programs_compiled: how many it took to find out.
      launches: kernels, copies and calls of libraries that one iteration launches; GPUs alone,
        as are the next three.
      launches_per_step: of one step of all environments in the rollout.
      launches_by_phase: the launches of an iteration by where they come from.
      uncounted_loops: how many loops run until a condition holds; each is counted as one trip.
      collectives: how many of each kind one iteration does, loops multiplied by their trips.
      compile_seconds: tracing, lowering and compiling one program on this machine.
      note: how all this was found.
      members: how many runs the program trains at once, spread over the devices.
    """

    target: str
    device: str
    devices: int
    env: str
    algorithm: str
    num_envs: int
    unroll_length: int
    fits: bool
    memory_bytes: int | None
    memory: dict[str, int]
    device_memory_bytes: int
    usable_memory_bytes: int
    refused: str | None
    largest_num_envs: int | None
    smallest_too_large: int | None
    programs_compiled: int
    launches: int | None
    launches_per_step: float | None
    launches_by_phase: dict[str, int] | None
    uncounted_loops: int | None
    collectives: dict[str, int] | None
    compile_seconds: float
    note: str = NOT_RUN
    members: int = 1


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be planned; what `plan` takes, with an environment's name and options apart.

    Attributes:
      env: a name, or an object.
      env_options: for `jtrust.make_env`, where it is a name.
    """

    env: Any
    env_options: dict[str, Any]
    algorithm: Algorithm
    target: str
    devices: int | None
    largest: bool
    options: ProgramOptions
    members: int = 1


def plan(
    env: Any,
    algorithm: Algorithm | None = None,
    *,
    target: str,
    devices: int | None = None,
    largest: bool = True,
    members: int = 1,
    env_options: dict[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
    **options: Unpack[ProgramOptions],
) -> Plan:
    """Compiles an iteration for devices that need not be here, and runs nothing.

    It works in a process of its own, in which JAX has the CPU alone: no accelerator of this machine
    is touched, whoever uses it. An environment or network that cannot be handed to another process
    is compiled in this one, for the same devices; what JAX computes meanwhile stays on the CPU.

    Args:
      env, algorithm: as for `jtrust.train`.
      target: a GPU (`h100`; `h100:4`, four; `h100:2x4`, two hosts with four each), a TPU's topology
        as JAX names it (`v5e:2x2`), `cpu`, or a file with XLA's description of a GPU.
      devices: how many of the target's devices; by default all.
      largest: also look for the largest number of environments that fits, which compiles two or
        three programs more.
      members: how many runs of a sweep are one program (`jtrust.train_many`); a multiple of the
        devices, each of which has whole runs.
      env_options: keyword arguments for `jtrust.make_env`, where `env` is a name.
      say: called with a line of text when a program is about to be compiled.
      **options: of `jtrust.make_trainer`: num_envs, unroll_length, network, ...

    Raises:
      BadArgument: an argument that will not do, or something that is not installed.
      PlanningFailed: XLA failed otherwise than for want of memory.
    """
    from jtrust.planning.processes import answer

    check_names("plan", options)
    find_target(target)  # what is misspelt is told at once
    algorithm = TRPO() if algorithm is None else algorithm
    checks.truth_value("largest", largest)
    request = Request(
        env, dict(env_options or {}), algorithm, target, devices, largest, options,
        checks.whole_number("members", members, maximum=100_000, example=8),
    )
    return answer(request, say or (lambda line: None))
