"""Training runs from the host's side: `train`, `resume`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import NamedSharding

from jtrust import checks
from jtrust.algorithms import TRPO, Algorithm
from jtrust.environments.warp_physics import MORE_ROOM
from jtrust.networks import NetworkConfig
from jtrust.paths import user_path
from jtrust.runs.checkpoints import CheckpointReader, CheckpointWriter, from_arrays
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import RunDirectory, default_name
from jtrust.runs.metrics import MetricsWriter, check_services, open_writers, to_row
from jtrust.runs.progress import Progress, Silent
from jtrust.runs.result import Result, columns, make_policy
from jtrust.runs.saver import Clock, Saver
from jtrust.runs.signals import StopRequest
from jtrust.runs.upgrades import upgraded
from jtrust.startup import check_platform, collector_paused
from jtrust.training import Trainer, TrainState, make_trainer
from jtrust.training.mesh import ON_CPU, STATE_SPEC

# Iterations dispatched before the metrics of the oldest are read: the device always has the next.
_AHEAD = 2
_DEFAULT_CHECKPOINTS = 10


def train(
    env: Any,
    algorithm: Algorithm | None = None,
    *,
    num_envs: int | None = None,
    total_steps: int = 1_000_000,
    seed: int = 0,
    run_dir: str | os.PathLike | None = None,
    unroll_length: int = 64,
    network: NetworkConfig | None = None,
    action_bins: int | None = None,
    policy_network: nn.Module | None = None,
    value_network: nn.Module | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 0,
    devices: Sequence[jax.Device] | int | None = None,
    tensorboard: bool = False,
    wandb: bool = False,
    make_progress: Callable[[RunConfig, float], Progress] | None = None,
    default_run_dir: bool = False,
    hand_on_signals: bool = True,
) -> Result:
    """Trains a policy.

    SIGINT and SIGTERM end training after the iterations in hand and a checkpoint, and are then
    handed on to whoever handled them before: Ctrl-C raises KeyboardInterrupt.

    Args:
      env: a name for `jtrust.make_env`, an `Environment`, a Brax `Env`, or an object with pure
        `reset(key)` and `step(state, action)`.
      algorithm: `TRPO()` by default.
      num_envs: environments side by side; by default 64 on CPUs and 4096 on accelerators.
      total_steps: environment steps; rounded up to whole iterations.
      seed: of the run's random key; the same seed gives the same run.
      run_dir: where to keep configuration, metrics and checkpoints; None keeps nothing.
      unroll_length: steps of each environment per iteration.
      network: shape of the networks.
      action_bins: cut each dimension of continuous actions into this many values, and train a
        categorical policy over each; by default actions stay continuous.
      policy_network: a flax.linen module of your own, normalised observations [..., O] -> a
        distribution of `jtrust.distributions`; docs/networks.md has an example.
      value_network: the same, normalised observations [..., O] -> values [...].
      checkpoint_every: iterations between checkpoints; by default a tenth of the run. One is
        written before the first iteration and one behind the last, too.
      keep_checkpoints: how many of the newest to keep; 0 keeps all.
      devices: which devices, or how many; by default all.
      tensorboard: also write TensorBoard event files into `run_dir`.
      wandb: also send metrics to Weights & Biases.
      make_progress: (configuration, max_kl) -> what shows progress; by default nothing is shown.
      default_run_dir: keep the run under `checkpoints/`, by the name of what is trained.
      hand_on_signals: False only returns, with the signal's number in `stopped_by`.

    Raises:
      BadArgument: an argument that will not do, with what would.
      TrainingFailed: every step of an iteration gave NaN or infinity.
      OSError: metrics or the last checkpoint could not be written.
      KeyboardInterrupt: after Ctrl-C, once a checkpoint is written and everything closed.
    """
    check_platform()
    if run_dir is not None:
        run_dir = user_path("run_dir", run_dir)
    seed = checks.whole_number("seed", seed, minimum=0)
    total_steps = checks.whole_number(
        "steps" if default_run_dir else "total_steps", total_steps, maximum=10**15,
        example=1_000_000,
    )
    keep_checkpoints = checks.whole_number("keep_checkpoints", keep_checkpoints, minimum=0)
    if checkpoint_every is not None:
        checkpoint_every = checks.whole_number("checkpoint_every", checkpoint_every, example=50)
    for name, wanted in (("tensorboard", tensorboard), ("wandb", wandb)):
        checks.truth_value(name, wanted)
        if wanted and run_dir is None and not default_run_dir:
            raise checks.BadArgument(name, wanted, "needs a run_dir to write into")
    check_services(tensorboard, wandb)
    trainer = make_trainer(
        env, TRPO() if algorithm is None else algorithm, num_envs=num_envs,
        unroll_length=unroll_length, network=network, action_bins=action_bins,
        policy_network=policy_network, value_network=value_network, devices=devices,
    )
    iterations = -(-total_steps // trainer.steps_per_iteration)
    config = RunConfig.describe(
        trainer, seed=seed, total_steps=total_steps,
        checkpoint_every=checkpoint_every or max(iterations // _DEFAULT_CHECKPOINTS, 1),
        keep_checkpoints=keep_checkpoints, tensorboard=tensorboard, wandb=wandb,
        wandb_id=_new_wandb_id() if wandb else "",
    )
    with contextlib.ExitStack() as stack:
        # From here on: a signal while the program compiles also leaves a run that can go on. It
        # is handed on when everything below is closed and unlocked.
        stop = stack.enter_context(StopRequest(hand_on=hand_on_signals))
        directory = None
        if run_dir is not None:
            directory = RunDirectory.create(run_dir)
        elif default_run_dir:
            name = default_name(config.env, config.algorithm, seed)
            directory = RunDirectory.create_default(name)
        if directory is not None:
            stack.callback(directory.unlock)
            stack.callback(directory.abandon)
            config = config.signed()
        progress = (make_progress or (lambda *_: Silent()))(config, float(trainer.algorithm.max_kl))
        stack.callback(progress.close)
        if num_envs is None and trainer.num_envs > ON_CPU:
            progress.note(
                f"num_envs {trainer.num_envs}, as on any accelerator where none is given"
            )
        clock = Clock(trainer.steps_per_iteration)
        with collector_paused():
            state = trainer.init(jax.random.key(seed))
            program = _traced(trainer, state)
            # The first checkpoint goes to the disk while the program compiles, and not before:
            # tracing is Python's work, and so is half of a checkpoint's.
            begun = None
            if directory is not None:
                helper = stack.enter_context(ThreadPoolExecutor(1))
                first = CheckpointWriter(directory.path)
                begun = helper.submit(_begin, first, first.copy(state), directory, config)
            iterate = program.compile()
        writers: list[MetricsWriter] = []
        if begun is not None:
            begun.result()
            writers = open_writers(stack, directory, config)
        return _run(
            trainer, iterate, config, state, 0, directory, writers, progress, clock, stop, stack
        )


def resume(
    run_dir: str | os.PathLike,
    total_steps: int | None = None,
    *,
    env: Any = None,
    policy_network: nn.Module | None = None,
    value_network: nn.Module | None = None,
    devices: Sequence[jax.Device] | int | None = None,
    keep_checkpoints: int | None = None,
    tensorboard: bool | None = None,
    wandb: bool | None = None,
    allow_code: bool = False,
    make_progress: Callable[[RunConfig, float], Progress] | None = None,
    hand_on_signals: bool = True,
) -> Result:
    """Goes on with a run from its newest whole checkpoint, exactly as if it had never stopped.

    Args:
      run_dir: the run's directory.
      total_steps: environment steps in total, from the run's start; by default what it was begun
        with.
      env: the environment, where the run's own was an object and not a name.
      policy_network, value_network: the run's, where they were given to `train`.
      devices: which devices, or how many; by default all.
      keep_checkpoints, tensorboard, wandb: as for `train`, from now on; None goes on as the run
        was begun.
      allow_code: call the MODULE:CALLABLE that the run names, though it was not this user's own
        jtrust that began the run; from then on it counts as this user's.
      make_progress, hand_on_signals: as for `train`.

    Raises:
      BadArgument: no run there, none of its checkpoints whole, one that does not fit, or code to
        be called that nobody has allowed.
      TrainingFailed, OSError, KeyboardInterrupt: as `train`.
    """
    check_platform()
    directory, config = RunDirectory.open(run_dir)
    CheckpointReader(directory.path).check_training_state()
    config.check_random_keys()
    config = _with_sinks(config, keep_checkpoints, tensorboard, wandb)
    if total_steps is not None:
        total_steps = checks.whole_number(
            "steps", total_steps, maximum=10**15, example=config.total_steps
        )
        config = dataclasses.replace(config, total_steps=total_steps)
    if env is not None:
        env = config.describe_own(env)
    else:
        env = config.make_environment(directory.path, allow_code)
        if allow_code:
            config = config.signed()
    trainer = config.make_trainer(env, devices, policy_network, value_network)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest(hand_on=hand_on_signals))
        directory.lock()
        stack.callback(directory.unlock)
        clock = Clock(trainer.steps_per_iteration)
        state, step = restore(trainer, directory.path)
        done = step // trainer.steps_per_iteration
        if total_steps is not None and config.total_iterations < done:
            raise checks.BadArgument(
                "steps", total_steps, f"the run is already at {step}; ask for more"
            )
        directory.write_config(config)
        directory.cut_metrics(done)
        writers = open_writers(stack, directory, config, step)
        progress = (make_progress or (lambda *_: Silent()))(config, float(trainer.algorithm.max_kl))
        stack.callback(progress.close)
        progress.note(checks.printable(f"going on from step {step:,} of {directory.path}"))
        if config.wandb and wandb is None:
            progress.note("metrics go to Weights & Biases, as the run was begun (or: --no-wandb)")
        if trainer.mesh.size != config.devices:
            # Said, since it is the one thing that makes a resumed run differ by rounding.
            progress.note(
                f"going on with {trainer.mesh.size} devices; the run was started on "
                f"{config.devices}, so it is the same up to rounding"
            )
        with collector_paused():
            iterate = _traced(trainer, state).compile()
        return _run(
            trainer, iterate, config, state, done, directory, writers, progress, clock, stop, stack
        )


def _with_sinks(
    config: RunConfig, keep_checkpoints: int | None, tensorboard: bool | None, wandb: bool | None
) -> RunConfig:
    """The configuration with what is not None in place of what the run was begun with."""
    if keep_checkpoints is not None:
        keep_checkpoints = checks.whole_number("keep_checkpoints", keep_checkpoints, minimum=0)
    changes = {"keep_checkpoints": keep_checkpoints, "tensorboard": tensorboard, "wandb": wandb}
    changes = {name: value for name, value in changes.items() if value is not None}
    config = dataclasses.replace(config, **changes)
    check_services(config.tensorboard, config.wandb)
    if config.wandb and not config.wandb_id:
        config = dataclasses.replace(config, wandb_id=_new_wandb_id())
    return config


def _new_wandb_id() -> str:
    return secrets.token_hex(4)


def restore(
    trainer: Trainer, run_dir: str | os.PathLike, step: int | None = None
) -> tuple[TrainState, int]:
    """A stored training state, placed on the trainer's devices, and its step."""
    reader = CheckpointReader(run_dir)
    like = jax.eval_shape(trainer.init, jax.random.key(0))
    step, arrays = reader.newest_whole(step, like=like)
    host_state = from_arrays(upgraded(arrays), like, str(reader.directory / str(step)))
    shardings = jax.tree.map(
        lambda spec: NamedSharding(trainer.mesh, spec), STATE_SPEC,
        is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
    )
    # Copied, so that the device owns memory which the first iteration may overwrite.
    placed = jax.jit(lambda s: jax.tree.map(jax.numpy.copy, s), out_shardings=shardings)(host_state)
    return placed, step


def _begin(
    writer: CheckpointWriter, state: TrainState, directory: RunDirectory, config: RunConfig
) -> None:
    """Makes a run of a directory: a configuration is only ever found beside a checkpoint."""
    with contextlib.closing(writer):
        writer.save(0, state)
        writer.wait()
    directory.write_config(config)
    directory.settle()
    directory.cut_metrics(0)


def _traced(trainer: Trainer, state: TrainState) -> jax.stages.Lowered | _Uncompiled:
    """The program of an iteration, to be compiled; what it is given, it overwrites."""
    if jax.config.jax_disable_jit:
        return _Uncompiled(trainer.iterate)
    return jax.jit(trainer.iterate, donate_argnums=0).lower(state)


@dataclasses.dataclass(frozen=True)
class _Uncompiled:
    """Stands for a program where JAX_DISABLE_JIT says that nothing is to be compiled."""

    function: Callable

    def compile(self) -> Callable:
        return self.function


def _run(
    trainer: Trainer, iterate: Callable[[TrainState], tuple], config: RunConfig,
    state: TrainState, done: int, directory: RunDirectory | None, writers: list[MetricsWriter],
    progress: Progress, clock: Clock, stop: StopRequest, stack: contextlib.ExitStack,
) -> Result:
    """Iterates from `done` to the end, or until a signal."""
    rows: list[dict[str, Any]] = []
    saver = None
    if directory is not None:
        writer = CheckpointWriter(directory.path, config.keep_checkpoints)
        # Whatever ends the run: the directory is unlocked behind the last byte of a checkpoint.
        stack.callback(writer.close)
        saver = Saver(writer, progress, done * trainer.steps_per_iteration)

    def report(iteration: int, metrics: Any, checkpoint: TrainState | None) -> None:
        row = to_row({
            "step": iteration * trainer.steps_per_iteration, "iteration": iteration,
            **jax.device_get(metrics), **clock.read(),
        })
        rows.append(row)
        for out in writers:
            out.write(row)
        progress.update(row)
        if row["environment/overflow"] and not any(r["environment/overflow"] for r in rows[:-1]):
            progress.note(
                f"warning: at {row['environment/overflow']:,} steps of iteration {iteration} "
                f"{MORE_ROOM}; further ones are counted in environment/overflow"
            )
        if row["environment/nonfinite"] >= trainer.steps_per_iteration:
            raise checks.TrainingFailed(
                f"{config.env} gave NaN or infinity at every step of iteration {iteration}; "
                f"stopped, and the checkpoints before it are as they were"
            )
        # Behind its row, so that a run killed between the two has the row of every iteration
        # that a checkpoint has gone through.
        if checkpoint is not None:
            saver.save(row["step"], checkpoint)

    pending: collections.deque = collections.deque()
    iteration = done
    while iteration < config.total_iterations and stop.number is None:
        state, metrics = iterate(state)
        iteration += 1
        due = saver is not None and iteration % config.checkpoint_every == 0
        pending.append((iteration, metrics, writer.copy(state) if due else None))
        if len(pending) > _AHEAD:
            report(*pending.popleft())
    while pending:
        report(*pending.popleft())
    if saver is not None:
        saver.finish(iteration * trainer.steps_per_iteration, state)
    return Result(
        policy=make_policy(trainer, state),
        state=state,
        metrics=columns(rows),
        trainer=trainer,
        run_dir=None if directory is None else str(directory.path),
        stopped_by=stop.number,
    )
