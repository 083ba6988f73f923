"""Training runs from the host's side: `train`, `resume`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import flax.linen as nn
import jax

from jtrust import checks, presets
from jtrust.algorithms import TRPO, Algorithm
from jtrust.hosts.connecting import train_into
from jtrust.hosts.group import Hosts
from jtrust.paths import user_path
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.runs.config import RunConfig, hyperparameters_of
from jtrust.runs.directory import RunDirectory, SharedDirectory, default_name
from jtrust.runs.evaluation import Evaluations
from jtrust.runs.initialize import Source
from jtrust.runs.matching import check_random_keys, check_trainer, describe_own
from jtrust.runs.metrics import Services
from jtrust.runs.result import Result
from jtrust.runs.session import MakeProgress, Session
from jtrust.runs.signals import StopRequest
from jtrust.runs.sinks import IterationInfo, Sink, as_sinks
from jtrust.startup import check_platform
from jtrust.training import Trainer, make_trainer
from jtrust.training.build import TrainerOptions, check_names
from jtrust.training.mesh import ON_CPU
from jtrust.version import __version__

_DEFAULT_CHECKPOINTS = 10

GivenSinks = Sequence[Sink | Callable[[IterationInfo], None]]


def train(
    env: Any,
    algorithm: Algorithm | None = None,
    *,
    total_steps: int = 1_000_000,
    seed: int = 0,
    run_dir: str | os.PathLike | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 0,
    tensorboard: bool = False,
    wandb: bool = False,
    mlflow: bool = False,
    evaluate_every: int | None = None,
    keep_best: bool = False,
    stop_at: float | None = None,
    initialize_from: str | os.PathLike | None = None,
    preset: str = "",
    sinks: GivenSinks = (),
    make_progress: MakeProgress | None = None,
    default_run_dir: bool = False,
    hand_on_signals: bool = True,
    **options: Unpack[TrainerOptions],
) -> Result:
    """Trains a policy: `jtrust.train(trainer, ...)`, or `jtrust.train(env, algorithm, ...)`.

    SIGINT and SIGTERM end training after the iterations in hand and a checkpoint, and are then
    handed on to whoever handled them before: Ctrl-C raises KeyboardInterrupt.

    Args:
      env: a `Trainer`; or what `make_trainer` makes one of: a name for `jtrust.make_env`, an
        `Environment`, a Brax `Env`, or an object with pure `reset(key)` and `step(state, action)`.
      algorithm: `TRPO()` by default; with a trainer, its own.
      total_steps: environment steps; rounded up to whole iterations.
      seed: of the run's random key; the same seed gives the same run.
      run_dir: where to keep configuration, metrics and checkpoints; None keeps nothing.
      checkpoint_every: iterations between checkpoints; by default a tenth of the run. One is
        written before the first iteration and one behind the last, too.
      keep_checkpoints: how many of the newest to keep; 0 keeps all.
      tensorboard: also write TensorBoard event files into `run_dir`.
      wandb: also send metrics to Weights & Biases.
      mlflow: also send them to MLflow: to MLFLOW_TRACKING_URI, or a database in `run_dir`.
      evaluate_every: iterations from one evaluation of the policy's mode to the next,
        `evaluation/return` and `evaluation/length`; by default none. Training stays to the bit
        what it is without.
      keep_best: also keep the checkpoint of the best evaluation, in `best/`.
      stop_at: end the run once an evaluation's mean return is at least this.
      initialize_from: another run, from whose policy, values and normaliser this one starts; from
        its best checkpoint, where it kept that. Or a checkpoint of brax's PPO, whose policy's means
        and normaliser are taken.
      preset: environment whose preset the settings came from (`jtrust.presets`), to be kept.
      sinks: told of each iteration on the host: `jtrust.Sink` objects, or functions of an
        `IterationInfo`.
      make_progress: (configuration, max_kl) -> what shows progress; by default nothing is shown.
      default_run_dir: keep the run under `checkpoints/`, by the name of what is trained.
      hand_on_signals: False only returns, with the signal's number in `stopped_by`.
      **options: of `make_trainer`: num_envs, unroll_length, network, action_bins, policy_network,
        value_network, devices, gae, value_fit; none with a trainer.

    Raises:
      BadArgument: an argument that will not do, with what would.
      TrainingFailed: every step of an iteration gave NaN or infinity.
      OSError: metrics or the last checkpoint could not be written.
      KeyboardInterrupt: after Ctrl-C, once a checkpoint is written and everything closed.
    """
    check_platform()
    kept = run_dir is not None or default_run_dir
    seed = checks.whole_number("seed", seed, minimum=0)
    total_steps = step_count("steps" if default_run_dir else "total_steps", total_steps)
    if run_dir is not None:
        run_dir = user_path("run_dir", run_dir)
    if checkpoint_every is not None:
        checkpoint_every = checks.whole_number("checkpoint_every", checkpoint_every, example=50)
    services = Services(keep_checkpoints, tensorboard, wandb, mlflow).checked(kept)
    evaluations = Evaluations(evaluate_every, keep_best, stop_at).checked(kept)
    own_sinks = as_sinks(sinks)
    check_names("train", options)
    hosts = Hosts.of(env.mesh if isinstance(env, Trainer) else options.get("devices"))
    trainer = hosts.each_well("trainer", lambda: _trainer_of(env, algorithm, options))
    config = RunConfig.describe(
        trainer, seed=seed, total_steps=total_steps,
        checkpoint_every=checkpoint_every or default_checkpoint_every(total_steps, trainer),
    )
    config = dataclasses.replace(
        services.into(config), evaluation=evaluations.as_json(),
        preset=presets.load(preset).env if preset else "",
    )
    source = None
    if initialize_from is not None:
        source = Source.open(user_path("initialize_from", initialize_from))
        config = dataclasses.replace(config, initialize_from=source.path)
    _compare(hosts, config, trainer)
    with contextlib.ExitStack() as stack:
        # From here on: a signal while the program compiles also leaves a run that can go on. It
        # is handed on when everything below is closed and unlocked.
        stop = stack.enter_context(StopRequest(hand_on=hand_on_signals))
        directory = _open(run_dir, config, stack, hosts) if kept else None
        if directory is not None and hosts.first:
            config = config.signed()
        session = Session(
            trainer, config, directory, stop, stack, own_sinks, make_progress, hosts, source
        )
        if options.get("num_envs") is None and env is not trainer and trainer.num_envs > ON_CPU:
            session.progress.note(
                f"num_envs {trainer.num_envs}, as on any accelerator where none is given"
            )
        return session.begin(seed)


def step_count(name: str, steps: Any, example: int = 1_000_000) -> int:
    return checks.whole_number(name, steps, maximum=10**15, example=example)


def default_checkpoint_every(total_steps: int, trainer: Trainer) -> int:
    """Iterations between checkpoints where nothing is said."""
    iterations = -(-total_steps // trainer.steps_per_iteration)
    return max(iterations // _DEFAULT_CHECKPOINTS, 1)


def _open(
    run_dir: Any, config: RunConfig, stack: contextlib.ExitStack, hosts: Hosts
) -> RunDirectory:
    """A new run's directory, locked until the stack is closed; by default one with its name.

    Of several processes the first makes it, and all have to see it.
    """
    made: list[RunDirectory] = []

    def create() -> tuple[str, ...]:
        if run_dir is not None:
            directory = RunDirectory.create(run_dir)
        else:
            name = default_name(config.env, config.algorithm, config.seed)
            directory = RunDirectory.create_default(name)
        stack.callback(directory.unlock)
        stack.callback(directory.abandon)
        made.append(directory)
        paths = (os.path.abspath(p) for p in (directory.path, directory.settled_path))
        return *paths, directory.token

    path, final, token = hosts.agreed("run directory", create)
    return _seen(made[0] if hosts.first else SharedDirectory(path, final), token, hosts)


def _seen(directory: RunDirectory, token: str, hosts: Hosts) -> RunDirectory:
    """The directory, once every process sees in it what the first has written."""
    hosts.each_well("see the directory", lambda: directory.check_seen(token))
    return directory


def _compare(hosts: Hosts, config: RunConfig, trainer: Trainer) -> None:
    """Has all processes be of one version and train the same.

    Raises:
      BadArgument: what this process has otherwise than the first.
      ToldElsewhere: another differs.
    """
    if hosts.several:
        # Each its own, of which the first one's are kept; and what the run was begun with.
        own = ("wandb_id", "mlflow_id", "signature", "jtrust", "devices", "processes")
        fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in own}
        versions = {"version of jtrust": __version__, "version of jax": jax.__version__}
        hosts.same("run", {**versions, "devices": trainer.mesh.size, **fields})


def resume(
    run_dir: str | os.PathLike,
    total_steps: int | None = None,
    *,
    trainer: Trainer | None = None,
    env: Any = None,
    policy_network: nn.Module | None = None,
    value_network: nn.Module | None = None,
    devices: Sequence[jax.Device] | int | None = None,
    keep_checkpoints: int | None = None,
    tensorboard: bool | None = None,
    wandb: bool | None = None,
    mlflow: bool | None = None,
    allow_code: bool = False,
    sinks: GivenSinks = (),
    make_progress: MakeProgress | None = None,
    hand_on_signals: bool = True,
) -> Result:
    """Goes on with a run from its newest whole checkpoint, exactly as if it had never stopped.

    Args:
      run_dir: the run's directory.
      total_steps: environment steps in total, from the run's start; by default what it was begun
        with.
      trainer: the run's, where it was begun with one that its configuration cannot make again,
        such as one with an algorithm of your own; then `env`, networks and `devices` are its own.
      env: the environment, where the run's own was an object and not a name.
      policy_network, value_network: the run's, where they were given to `train`.
      devices: which devices, or how many; by default all.
      keep_checkpoints, tensorboard, wandb, mlflow: as for `train`, from now on; None goes on as
        the run was begun.
      allow_code: call the MODULE:CALLABLE that the run names, though it was not this user's own
        jtrust that began the run; from then on it counts as this user's.
      sinks, make_progress, hand_on_signals: as for `train`.

    Raises:
      BadArgument: no run there, none of its checkpoints whole, one that does not fit, or code to
        be called that nobody has allowed.
      TrainingFailed, OSError, KeyboardInterrupt: as `train`.
    """
    check_platform()
    own_sinks = as_sinks(sinks)
    hosts = Hosts.of(devices if trainer is None else trainer.mesh)
    directory, config = hosts.each_well("open", lambda: _existing(run_dir))
    config = Services(keep_checkpoints, tensorboard, wandb, mlflow).into(config)
    if total_steps is not None:
        total_steps = step_count("steps", total_steps, config.total_steps)
        config = dataclasses.replace(config, total_steps=total_steps)
    if trainer is not None:
        others = {"env": env, "policy_network": policy_network, "value_network": value_network,
                  "devices": devices, "allow_code": allow_code or None}
        _refuse_beside_trainer(others)
        check_trainer(config, trainer)
        config = dataclasses.replace(config, hyperparameters=hyperparameters_of(trainer))
    else:
        if env is not None:
            env = describe_own(config, env)
        else:
            # Whose jtrust began the run is known where the first process is.
            hosts.agreed("code", lambda: config.check_code(directory.path, allow_code))
            allowed = allow_code or hosts.several
            env = hosts.each_well(
                "environment", lambda: config.make_environment(directory.path, allowed)
            )
            config = config.signed() if allow_code and hosts.first else config
        made = (env, devices, policy_network, value_network)
        trainer = hosts.each_well("trainer", lambda: config.make_trainer(*made))
    _compare(hosts, config, trainer)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest(hand_on=hand_on_signals))
        directory = _held(directory, stack, hosts)
        session = Session(
            trainer, config, directory, stop, stack, own_sinks, make_progress, hosts
        )
        told_of = {"wandb": wandb, "mlflow": mlflow}
        return session.go_on(total_steps, {k for k, v in told_of.items() if v is not None})


def _existing(run_dir: str | os.PathLike) -> tuple[RunDirectory, RunConfig]:
    """A run that can go on."""
    directory, config = RunDirectory.open(run_dir)
    CheckpointReader(directory.path).check_training_state()
    check_random_keys(config)
    return directory, config


def _held(
    directory: RunDirectory, stack: contextlib.ExitStack, hosts: Hosts
) -> RunDirectory:
    """A run's directory, locked until the stack is closed, and seen by all processes."""

    def lock() -> str:
        directory.lock()
        stack.callback(directory.unlock)
        return directory.token

    token = hosts.agreed("lock", lock)
    train_into(directory.path)
    return _seen(directory if hosts.first else SharedDirectory(directory.path), token, hosts)


def _trainer_of(env: Any, algorithm: Algorithm | None, options: TrainerOptions) -> Trainer:
    if not isinstance(env, Trainer):
        return make_trainer(env, TRPO() if algorithm is None else algorithm, **options)
    _refuse_beside_trainer({"algorithm": algorithm, **options})
    return env


def _refuse_beside_trainer(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is not None:
            raise checks.BadArgument(name, value, "the trainer has its own; leave it out")
