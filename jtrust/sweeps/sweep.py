"""Sweeps from the host's side: `train_many`, `resume_many`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax

from jtrust import checks
from jtrust.algorithms import TRPO, Algorithm
from jtrust.paths import user_path
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import CONFIG, RunDirectory, default_name
from jtrust.runs.evaluation import Evaluations, without
from jtrust.runs.matching import check_random_keys, describe_own
from jtrust.runs.metrics import Services
from jtrust.runs.run import default_checkpoint_every, step_count
from jtrust.runs.signals import StopRequest
from jtrust.startup import check_platform
from jtrust.sweeps.comparison import metric_key
from jtrust.sweeps.directory import SweepDirectory, SweepRecord
from jtrust.sweeps.members import Group, Member, changes, grouped, hyperparameters
from jtrust.sweeps.queue import MakeSinks
from jtrust.sweeps.results import ManyResults
from jtrust.sweeps.session import MakeProgress, SweepSession
from jtrust.sweeps.settings import (
    Base,
    Settings,
    as_values,
    combinations,
    member_name,
    named_algorithms,
    seeds_of,
)
from jtrust.training import Trainer
from jtrust.training.build import ProgramOptions
from jtrust.training.mesh import find_devices

_OBJECTS = ("network", "policy_network", "value_network", "gae", "value_fit")


def train_many(
    env: Any,
    algorithm: Algorithm | Sequence[Algorithm] | None = None,
    *,
    seeds: int | Sequence[int] = 8,
    seed: int = 0,
    total_steps: int = 1_000_000,
    run_dir: str | os.PathLike | None = None,
    zip: bool = False,
    at_once: int | None = None,
    devices: Sequence[jax.Device] | int | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 0,
    tensorboard: bool = False,
    wandb: bool = False,
    mlflow: bool = False,
    evaluate_every: int | None = None,
    keep_best: bool = False,
    stop_at: float | None = None,
    metric: str | None = None,
    make_sinks: MakeSinks | None = None,
    make_progress: MakeProgress | None = None,
    default_run_dir: bool = False,
    hand_on_signals: bool = True,
    **settings: Any,
) -> ManyResults:
    """Trains many runs as one program: `train_many(trainer, seeds=8, max_kl=[0.005, 0.01], ...)`.

    Each is a run of its own, in a directory of its own under `run_dir`, and what it would be if it
    were trained alone, up to rounding. Numbers that differ are arguments of the program; what
    shapes it (layers, algorithm, number of environments, counts) makes several programs, that run
    one after another.

    Args:
      env: a `Trainer`; or what `make_trainer` makes one of.
      algorithm: `TRPO()` by default, or a list of algorithms; with a trainer, its own.
      seeds: how many for each setting, from `seed` on; or which.
      seed: the first, where `seeds` is a number.
      total_steps: environment steps of each run; rounded up to whole iterations.
      run_dir: where to keep the sweep; None keeps nothing.
      zip: take lists side by side, the first value of each, the second, ...; by default all
        combinations.
      at_once: how many runs share the program at a time; by default as many as fit into memory.
      devices: which devices, or how many; by default all. Each has whole runs.
      checkpoint_every, keep_checkpoints, tensorboard, wandb, mlflow: of each run, as for `train`.
      evaluate_every, keep_best, stop_at: of each run, as for `train`.
      metric: by which runs will be compared, if that is to be checked beforehand.
      make_sinks: member -> its own sinks, as `sinks` of `train`.
      make_progress: (title, number of members) -> what shows progress; by default nothing is shown.
      default_run_dir: keep the sweep under `checkpoints/`.
      hand_on_signals: as for `train`.
      **settings: of the algorithm, of `NetworkConfig` or of `make_trainer`, by name; a list of
        values varies it.

    Raises:
      BadArgument: an argument that will not do, with what would.
      OSError: metrics or a last checkpoint could not be written.
      KeyboardInterrupt: after Ctrl-C, once checkpoints are written and everything closed.
    """
    check_platform()
    kept = run_dir is not None or default_run_dir
    total_steps = step_count("steps" if default_run_dir else "total_steps", total_steps)
    if run_dir is not None:
        run_dir = user_path("run_dir", run_dir)
    if checkpoint_every is not None:
        checkpoint_every = checks.whole_number("checkpoint_every", checkpoint_every, example=50)
    if at_once is not None:
        at_once = checks.whole_number("at_once", at_once, example=8)
    services = Services(keep_checkpoints, tensorboard, wandb, mlflow).checked(kept)
    evaluations = Evaluations(evaluate_every, keep_best, stop_at).checked(kept)
    found = sweep_devices(devices)
    first_seed = checks.whole_number("seed", seed, minimum=0)

    def config(trainer: Trainer, seed: int) -> RunConfig:
        described = RunConfig.describe(
            trainer, seed=seed, total_steps=total_steps,
            checkpoint_every=checkpoint_every or default_checkpoint_every(total_steps, trainer),
        )
        told = dataclasses.replace(services.into(described), evaluation=evaluations.as_json())
        return told.signed() if kept else told

    base, varied = _base_of(env, algorithm, settings)
    members = _members(
        base, combinations(varied, not zip), seeds_of(seeds, first_seed), found[:1], config
    )
    groups = grouped(members)
    if metric is not None:
        check_metric(metric, members[0].trainer, evaluate_every)
    record = _record(groups, members)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest(hand_on=hand_on_signals))
        directory = open_sweep(run_dir, members[0].config, record, stack) if kept else None
        session = SweepSession(
            groups, members, record, directory, found, at_once, stop, stack, make_sinks,
            make_progress,
        )
        return session.run()


def check_metric(metric: str, trainer: Trainer, evaluate_every: int | None) -> None:
    """Raises `BadArgument` for a metric that no row of such a run will have."""
    key = metric_key(metric)
    if key.startswith("evaluation/") and evaluate_every is None:
        raise checks.BadArgument("metric", metric, "needs evaluate_every, such as 10")
    _, found = jax.eval_shape(trainer.iterate, jax.eval_shape(trainer.init, jax.random.key(0)))
    known = {*found, *without(trainer.environment.costs), "step", "iteration",
             "time/seconds", "time/steps_per_second"}
    checks.one_of("metric", key, sorted(known))


def sweep_devices(given: Any) -> list[jax.Device]:
    """Devices of a sweep: `find_devices`, in a process of its own.

    Raises:
      BadArgument: as that, or there are several processes.
    """
    if jax.process_count() > 1:
        raise checks.BadArgument(
            "num_processes", jax.process_count(),
            "a sweep is of one process; start one on each host, with seeds of its own",
        )
    return find_devices(given)


def _base_of(
    env: Any, algorithm: Any, settings: Mapping[str, Any]
) -> tuple[Base, dict[str, list[Any]]]:
    """What all members have in common, and what varies, by name."""
    if isinstance(env, Trainer):
        if algorithm is not None:
            raise checks.BadArgument(
                "algorithm", algorithm, "the trainer has its own; leave it out"
            )
        algorithms = {env.algorithm.name: env.algorithm}
    else:
        algorithms = named_algorithms(TRPO() if algorithm is None else algorithm)
    options: dict[str, Any] = {}
    fixed: Settings = {}
    varied: dict[str, list[Any]] = {}
    if len(algorithms) > 1:
        varied["algorithm"] = list(algorithms)
    for name, given in settings.items():
        values = as_values(name, given)
        if name in _OBJECTS:
            if values is not None or isinstance(env, Trainer):
                raise checks.BadArgument(name, given, "must be one for the whole sweep" if (
                    values is not None) else "the trainer has its own; leave it out")
            options[name] = given
        elif values is not None and len(values) > 1:
            varied[name] = values
        else:
            fixed[name] = given if values is None else values[0]
    return Base(env, algorithms, cast(ProgramOptions, options), fixed), varied


def _members(
    base: Base, combos: Sequence[Settings], seeds: Sequence[int], devices: Sequence[jax.Device],
    config: Callable[[Trainer, int], RunConfig],
) -> list[Member]:
    """One for each setting and seed; a trainer is made for each setting."""
    found: list[Member] = []
    taken: set[str] = set()
    for settings in combos:
        trainer = base.trainer(settings, devices)
        for seed in seeds:
            name = member_name(settings, seed)
            if name in taken:  # long ones are cut
                name = f"{len(found)},{name}"
            taken.add(name)
            found.append(Member(name, seed, settings, trainer, config(trainer, seed)))
    return found


def _record(groups: Sequence[Group], members: Sequence[Member]) -> SweepRecord:
    base = members[0].config
    return SweepRecord(
        base=dataclasses.asdict(base),
        members=[entry(base, m) for m in members],
        groups=[group_entry(group) for group in groups],
    )


def entry(base: RunConfig, member: Member) -> dict[str, Any]:
    """A member as `sweep.json` has it."""
    return {
        "name": member.name, "seed": member.seed, "settings": dict(member.settings),
        "changes": changes(base, member.config),
    }


def group_entry(group: Group) -> dict[str, Any]:
    """A group as `sweep.json` has it."""
    return {
        "members": [m.name for m in group.members], "varied": list(group.varied),
        "slots": group.slots, "devices": group.devices,
    }


def open_sweep(
    run_dir: Any, config: RunConfig, record: SweepRecord, stack: contextlib.ExitStack,
    what: str = "sweep",
) -> SweepDirectory:
    """A new sweep's directory, locked until the stack is closed; `what` ends its default name."""
    if run_dir is not None:
        made: RunDirectory = SweepDirectory.create(run_dir)
    else:
        name = default_name(config.env, config.algorithm, config.seed)
        made = SweepDirectory.create_default(f"{name.rpartition('-seed')[0]}-{what}")
    directory = cast(SweepDirectory, made)
    stack.callback(directory.unlock)
    stack.callback(directory.abandon)
    directory.write_record(record)
    directory.settle()
    return directory


def resume_many(
    run_dir: str | os.PathLike,
    total_steps: int | None = None,
    *,
    env: Any = None,
    policy_network: nn.Module | None = None,
    value_network: nn.Module | None = None,
    devices: Sequence[jax.Device] | int | None = None,
    allow_code: bool = False,
    make_sinks: MakeSinks | None = None,
    make_progress: MakeProgress | None = None,
    hand_on_signals: bool = True,
) -> ManyResults:
    """Goes on with a sweep, each run from its newest whole checkpoint, as if it had never stopped.

    Runs that have come to their end, that failed or that were ended stay as they are.

    Args:
      run_dir: the sweep's directory.
      total_steps: environment steps of each run in total; by default what it was begun with.
      env, policy_network, value_network, devices, allow_code: as for `resume`.
      make_sinks, make_progress, hand_on_signals: as for `train_many`.

    Raises:
      BadArgument: no sweep there, one of its runs that cannot go on, or code to be called that
        nobody has allowed.
      OSError, KeyboardInterrupt: as `train_many`.
    """
    check_platform()
    found = sweep_devices(devices)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest(hand_on=hand_on_signals))
        directory, record = held(run_dir, stack)
        if record.search:
            raise checks.BadArgument(
                "RUN_DIR", run_dir,
                "is a search's; go on with it by jtrust.sweeps.search.resume_search",
            )
        if total_steps is not None:
            record.base["total_steps"] = _longer(directory, record, total_steps)
        made = (policy_network, value_network)
        members = _members_again(directory, record, env, made, found[:1], allow_code)
        by_name = {m.name: m for m in members}
        groups = [
            _group_again(one, [by_name[name] for name in one["members"]], directory)
            for one in record.groups
        ]
        if total_steps is not None:
            directory.write_record(record)
        session = SweepSession(
            groups, members, record, directory, found, None, stop, stack, make_sinks,
            make_progress,
        )
        return session.run()


def held(
    run_dir: str | os.PathLike, stack: contextlib.ExitStack
) -> tuple[SweepDirectory, SweepRecord]:
    """A sweep's directory, locked until the stack is closed, and what it says by then.

    Raises:
      BadArgument: no sweep there, a damaged one, or one that another process has.
    """
    directory, _ = SweepDirectory.open_sweep(run_dir)
    directory.lock()
    stack.callback(directory.unlock)
    # Read again: who held it until now may have written.
    return directory, SweepDirectory.open_sweep(run_dir)[1]


def _longer(directory: SweepDirectory, record: SweepRecord, total_steps: Any) -> int:
    """The steps that every run is to have in total, where none is beyond them."""
    total_steps = step_count("steps", total_steps, record.base["total_steps"])
    for member in record.members:
        path = directory.path / member["name"]
        there = CheckpointReader(path).steps() if (path / CONFIG).exists() else []
        config = record.config(member, str(path))
        most = -(-total_steps // config.steps_per_iteration) * config.steps_per_iteration
        if there and there[-1] > most:
            raise checks.BadArgument(
                "steps", total_steps, f"{member['name']} is already at {there[-1]}; ask for more"
            )
    return total_steps


def _group_again(
    said: dict[str, Any], members: list[Member], directory: SweepDirectory
) -> Group:
    """A group as it was begun.

    Raises:
      BadArgument: its members are not of one program, with the arguments that it says.
    """
    group = Group(members, tuple(said["varied"]), said["slots"], said["devices"])
    alike = grouped(members)
    leaves = len(jax.tree.leaves(hyperparameters(members[0].trainer)))
    if len(alike) > 1 or not set(alike[0].varied) <= set(group.varied) or any(
        place >= leaves for place in group.varied
    ):
        raise checks.BadArgument(
            "RUN_DIR", directory.path, "its sweep.json is damaged (members of one group are not of "
            "one program)"
        )
    return group


def _members_again(
    directory: SweepDirectory, record: SweepRecord, env: Any, networks: tuple[Any, Any],
    devices: Sequence[jax.Device], allow_code: bool,
) -> list[Member]:
    """The members of a sweep, their trainers made again: one for each setting."""
    where = str(directory.path)
    trainers: dict[str, Trainer] = {}
    found = []
    environment = None
    for one in record.members:
        config = record.config(one, where)
        if environment is None:
            check_random_keys(config)
            environment = (
                describe_own(config, env) if env is not None
                else config.make_environment(directory.path, allow_code)
            )
        same = repr(dataclasses.replace(config, seed=0, wandb_id=""))
        if same not in trainers:
            trainers[same] = config.make_trainer(environment, devices, *networks)
        found.append(Member(
            one["name"], one["seed"], record.settings(one), trainers[same], config
        ))
    return found
