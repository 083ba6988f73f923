"""Training runs from the host's side: `train`, `resume`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import NamedSharding

from jtrust import checks
from jtrust.algorithms import TRPO, Algorithm
from jtrust.networks import NetworkConfig
from jtrust.policy import Policy
from jtrust.runs.checkpoints import CheckpointReader, CheckpointWriter, from_arrays
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import RunDirectory, default_name
from jtrust.runs.metrics import JsonLines, MetricsWriter, TensorBoard, WeightsAndBiases, to_row
from jtrust.runs.progress import Progress, Silent
from jtrust.runs.signals import StopRequest
from jtrust.runs.upgrades import upgraded
from jtrust.startup import collector_paused
from jtrust.training import Trainer, TrainState, make_trainer
from jtrust.training.mesh import STATE_SPEC

# Iterations dispatched before the metrics of the oldest are read: the device always has the next.
_AHEAD = 2
_DEFAULT_CHECKPOINTS = 10


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
      policy: acts; see `jtrust.policy.Policy`.
      state: the whole training state, on the device.
      metrics: {key: array over the iterations of this call}; NaN where there was no value.
      trainer: what was trained.
      run_dir: where the run is kept, or None.
      stopped_by: number of the signal that ended it early, or None.
    """

    policy: Policy
    state: TrainState
    metrics: dict[str, np.ndarray]
    trainer: Trainer
    run_dir: str | None
    stopped_by: int | None


def train(
    env: Any,
    algorithm: Algorithm | None = None,
    *,
    num_envs: int = 64,
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
) -> Result:
    """Trains a policy.

    Args:
      env: a name for `jtrust.make_env`, an `Environment`, a Brax `Env`, or an object with pure
        `reset(key)` and `step(state, action)`.
      algorithm: `TRPO()` by default.
      num_envs: environments side by side.
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

    Raises:
      BadArgument: an argument that will not do, with what would.
    """
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
    trainer = make_trainer(
        env, TRPO() if algorithm is None else algorithm, num_envs=num_envs,
        unroll_length=unroll_length, network=network, action_bins=action_bins,
        policy_network=policy_network, value_network=value_network, devices=devices,
    )
    iterations = -(-total_steps // trainer.steps_per_iteration)
    config = RunConfig.describe(
        trainer, seed=seed, total_steps=total_steps,
        checkpoint_every=checkpoint_every or max(iterations // _DEFAULT_CHECKPOINTS, 1),
    )
    directory = None
    if run_dir is not None:
        directory = RunDirectory.create(run_dir)
    elif default_run_dir:
        directory = RunDirectory.create_default(default_name(config.env, config.algorithm, seed))

    with contextlib.ExitStack() as stack:
        if directory is not None:
            stack.callback(directory.unlock)
            stack.callback(directory.abandon)
        # From here on: a signal while the program compiles also leaves a run that can go on.
        stop = stack.enter_context(StopRequest())
        progress = (make_progress or (lambda *_: Silent()))(config, float(trainer.algorithm.max_kl))
        stack.callback(progress.close)
        clock = _Clock(trainer.steps_per_iteration)
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
            writers = _open_writers(stack, directory, config, tensorboard, wandb)
        return _run(
            trainer, iterate, config, state, 0, directory, writers, progress, clock, stop,
            keep_checkpoints,
        )


def resume(
    run_dir: str | os.PathLike,
    total_steps: int | None = None,
    *,
    env: Any = None,
    policy_network: nn.Module | None = None,
    value_network: nn.Module | None = None,
    devices: Sequence[jax.Device] | int | None = None,
    keep_checkpoints: int = 0,
    make_progress: Callable[[RunConfig, float], Progress] | None = None,
) -> Result:
    """Goes on with a run from its newest whole checkpoint, exactly as if it had never stopped.

    Args:
      run_dir: the run's directory.
      total_steps: environment steps in total, from the run's start; by default what it was begun
        with.
      env: the environment, where the run's own was an object and not a name.
      policy_network, value_network: the run's, where they were given to `train`.
      devices: which devices, or how many; by default all.
      keep_checkpoints: how many of the newest to keep; 0 keeps all.
      make_progress: as for `train`.

    Raises:
      BadArgument: no run there, none of its checkpoints whole, or one that does not fit.
    """
    keep_checkpoints = checks.whole_number("keep_checkpoints", keep_checkpoints, minimum=0)
    directory, config = RunDirectory.open(run_dir)
    if total_steps is not None:
        total_steps = checks.whole_number(
            "steps", total_steps, maximum=10**15, example=config.total_steps
        )
        config = dataclasses.replace(config, total_steps=total_steps)
    if env is not None:
        env = config.describe_own(env)
    trainer = config.make_trainer(env, devices, policy_network, value_network)
    directory.lock()
    with contextlib.ExitStack() as stack:
        stack.callback(directory.unlock)
        stop = stack.enter_context(StopRequest())
        clock = _Clock(trainer.steps_per_iteration)
        state, step = restore(trainer, run_dir)
        done = step // trainer.steps_per_iteration
        if total_steps is not None and config.total_iterations < done:
            raise checks.BadArgument(
                "steps", total_steps, f"the run is already at {step}; ask for more"
            )
        directory.write_config(config)
        directory.cut_metrics(done)
        writers = _open_writers(stack, directory, config, False, False)
        progress = (make_progress or (lambda *_: Silent()))(config, float(trainer.algorithm.max_kl))
        stack.callback(progress.close)
        progress.note(f"going on from step {step:,} of {run_dir}")
        if trainer.mesh.size != config.devices:
            # Said, since it is the one thing that makes a resumed run differ by rounding.
            progress.note(
                f"going on with {trainer.mesh.size} devices; the run was started on "
                f"{config.devices}, so it is the same up to rounding"
            )
        with collector_paused():
            iterate = _traced(trainer, state).compile()
        return _run(
            trainer, iterate, config, state, done, directory, writers, progress, clock, stop,
            keep_checkpoints,
        )


def restore(
    trainer: Trainer, run_dir: str | os.PathLike, step: int | None = None
) -> tuple[TrainState, int]:
    """A stored training state, placed on the trainer's devices, and its step."""
    reader = CheckpointReader(run_dir)
    step, arrays = reader.newest_whole(step)
    like = jax.eval_shape(trainer.init, jax.random.key(0))
    host_state = from_arrays(upgraded(arrays), like, str(reader.directory / str(step)))
    shardings = jax.tree.map(
        lambda spec: NamedSharding(trainer.mesh, spec), STATE_SPEC,
        is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
    )
    # Copied, so that the device owns memory which the first iteration may overwrite.
    placed = jax.jit(lambda s: jax.tree.map(jax.numpy.copy, s), out_shardings=shardings)(host_state)
    return placed, step


def make_policy(trainer: Trainer, state: TrainState) -> Policy:
    """The policy of a training state."""
    return Policy(
        trainer.policy_network, trainer.environment.action, state.policy,
        state.observation_moments.at(trainer.environment.policy_key),
        trainer.environment.policy_key,
    )


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


def _traced(trainer: Trainer, state: TrainState) -> jax.stages.Lowered:
    """The program of an iteration, to be compiled; what it is given, it overwrites."""
    return jax.jit(trainer.iterate, donate_argnums=0).lower(state)


def _open_writers(
    stack: contextlib.ExitStack, directory: RunDirectory, config: RunConfig, tensorboard: bool,
    wandb: bool,
) -> list[MetricsWriter]:
    writers: list[MetricsWriter] = [JsonLines(directory.metrics_path)]
    if tensorboard:
        writers.append(TensorBoard(directory.path))
    if wandb:
        writers.append(WeightsAndBiases(directory.path, dataclasses.asdict(config)))
    for writer in writers:
        stack.callback(writer.close)
    return writers


def _run(
    trainer: Trainer, iterate: Callable[[TrainState], tuple], config: RunConfig,
    state: TrainState, done: int, directory: RunDirectory | None, writers: list[MetricsWriter],
    progress: Progress, clock: _Clock, stop: StopRequest, keep_checkpoints: int,
) -> Result:
    """Iterates from `done` to the end, or until a signal."""
    rows: list[dict[str, Any]] = []
    saver = None
    if directory is not None:
        writer = CheckpointWriter(directory.path, keep_checkpoints)
        saver = _Saver(writer, progress, done * trainer.steps_per_iteration)

    def report(iteration: int, metrics: Any, checkpoint: TrainState | None) -> None:
        row = to_row({
            "step": iteration * trainer.steps_per_iteration, "iteration": iteration,
            **jax.device_get(metrics), **clock.read(),
        })
        rows.append(row)
        for out in writers:
            out.write(row)
        progress.update(row)
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
        metrics=_columns(rows),
        trainer=trainer,
        run_dir=None if directory is None else str(directory.path),
        stopped_by=stop.number,
    )


class _Saver:
    """Checkpoints on their way; one that fails is told of, and the next one tried."""

    def __init__(self, writer: CheckpointWriter, progress: Progress, last: int):
        self._writer, self._progress, self._last = writer, progress, last

    def save(self, step: int, state: TrainState) -> None:
        try:
            self._writer.save(step, state)
        except OSError as error:
            self._progress.note(f"warning: {error}; training goes on")
            self._writer.save(step, state)
        self._last = step

    def finish(self, step: int, state: TrainState) -> None:
        try:
            if step != self._last:
                self.save(step, state)
            self._writer.wait()
        finally:
            self._writer.close()


class _Clock:
    """Seconds since the start, and the rate between two readings."""

    def __init__(self, steps: int):
        self._steps, self._start = steps, time.perf_counter()
        self._last = self._start

    def read(self) -> dict[str, float]:
        now = time.perf_counter()
        rate = self._steps / max(now - self._last, 1e-9)
        self._last = now
        return {"time/seconds": now - self._start, "time/steps_per_second": rate}


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    keys = rows[0] if rows else ()
    nan = float("nan")
    return {k: np.asarray([nan if row[k] is None else row[k] for row in rows]) for k in keys}
