"""A run in this process, from its first iteration or a later one on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jtrust import checks
from jtrust.hosts.connecting import train_into
from jtrust.hosts.group import Hosts
from jtrust.hosts.stopping import Alone, Together
from jtrust.runs.best import StopAt, last_iteration
from jtrust.runs.checkpoints import CheckpointWriter
from jtrust.runs.config import RunConfig
from jtrust.runs.cost_watch import cost_watch
from jtrust.runs.directory import RunDirectory
from jtrust.runs.evaluation import Evaluation
from jtrust.runs.host_loop import AHEAD, Clock, HostLoop, copied, trace_iteration
from jtrust.runs.initialize import Source, initialized
from jtrust.runs.metrics import open_writers
from jtrust.runs.progress import Progress, Shown, Silent
from jtrust.runs.restoring import restore
from jtrust.runs.result import Result, columns
from jtrust.runs.saver import savers
from jtrust.runs.signals import StopRequest
from jtrust.runs.sinks import Rows, Sink, Watch
from jtrust.startup import collector_paused
from jtrust.training import Trainer, TrainState
from jtrust.training.mesh import doubtful_flags

MakeProgress = Callable[[RunConfig, float], Progress]


@dataclasses.dataclass
class Session:
    """One call of `train` or `resume`.

    Attributes:
      trainer, config: what is trained, and how it is written down.
      directory: where it is kept, locked; None for nowhere.
      stop: whether a signal came.
      stack: closes whatever is opened.
      own_sinks: the user's.
      make_progress: as for `train`.
      hosts: the processes that do the same; the first writes rows and shows progress.
      source: what a run that begins starts from, where that is another run.
    """

    trainer: Trainer
    config: RunConfig
    directory: RunDirectory | None
    stop: StopRequest
    stack: contextlib.ExitStack
    own_sinks: list[Sink]
    make_progress: MakeProgress | None
    hosts: Hosts
    source: Source | None = None

    def __post_init__(self):
        for sink in self.own_sinks:
            self.stack.callback(sink.close)

    @functools.cached_property
    def progress(self) -> Progress:
        """What shows progress, opened when it is first asked for."""
        make = self.make_progress if self.hosts.first else None
        make = make or (lambda *_: Silent())
        progress = make(self.config, float(self.trainer.algorithm.max_kl))
        self.stack.callback(progress.close)
        return progress

    @functools.cached_property
    def clock(self) -> Clock:
        """Starts when it is first asked for."""
        return Clock(self.trainer.steps_per_iteration)

    def begin(self, seed: int) -> Result:
        """Trains from the start."""
        _ = self.progress, self.clock
        with collector_paused():
            state = self.trainer.init(jax.random.key(seed))
            if self.source is not None:
                state, said = initialized(state, self.source, self.config)
                self.progress.note(checks.printable(said))
            program = trace_iteration(self.trainer, state)
            # The first checkpoint goes to the disk while the program compiles, and not before:
            # tracing is Python's work, and so is half of a checkpoint's.
            begun = None
            if self.directory is not None:
                helper = self.stack.enter_context(ThreadPoolExecutor(1))
                first = CheckpointWriter(self.directory.path, hosts=self.hosts)
                begun = helper.submit(
                    write_first, first, copied(state), self.directory, self.config
                )
            iterate = program.compile()
        writers: list[Sink] = []
        if self.directory is not None and begun is not None:
            begun.result()
            self.hosts.barrier("first checkpoint")
            self.directory.settle()  # which the first has done
            train_into(self.directory.path)
            if self.hosts.first:
                writers = open_writers(self.stack, self.directory, self.config)
        return self._iterate(iterate, state, 0, writers)

    def go_on(self, asked: int | None, told_of: Collection[str]) -> Result:
        """Trains from the newest whole checkpoint on.

        Args:
          asked: for how many steps in total, if for a number.
          told_of: of "wandb" and "mlflow" those of which this call said if metrics go there.
        """
        trainer, directory, config = self.trainer, self.directory, self.config
        assert directory is not None
        _ = self.clock
        state, step = restore(trainer, directory.path)
        done = step // trainer.steps_per_iteration
        if asked is not None and config.total_iterations < done:
            raise checks.BadArgument(
                "steps", asked, f"the run is already at {step}; ask for more"
            )
        directory.write_config(config)
        directory.cut_metrics(done)
        writers = open_writers(self.stack, directory, config, step) if self.hosts.first else []
        note = self.progress.note
        note(checks.printable(f"going on from step {step:,} of {directory.path}"))
        for name, title in (("wandb", "Weights & Biases"), ("mlflow", "MLflow")):
            if getattr(config, name) and name not in told_of:
                note(f"metrics go to {title}, as the run was begun (or: --no-{name})")
        if (trainer.mesh.size, self.hosts.count) != (config.devices, config.processes):
            # Said, since it is the one thing that makes a resumed run differ by rounding.
            note(
                f"going on with {_devices(trainer.mesh.size, self.hosts.count)}; the run was "
                f"started on {_devices(config.devices, config.processes)}, so it is the same up to "
                "rounding"
            )
        with collector_paused():
            iterate = trace_iteration(trainer, state).compile()
        return self._iterate(iterate, state, done, writers)

    def _iterate(
        self, iterate: Callable, state: TrainState, done: int, writers: list[Sink]
    ) -> Result:
        """Iterates from `done` to the end, or until somebody stops it."""
        rows = Rows()
        note = self.progress.note
        if doubt := doubtful_flags(self.trainer.mesh):
            note(f"warning: {doubt}")
        sinks = [rows, *writers, Shown(self.progress), Watch(self.config.env, note)]
        sinks += cost_watch(self.trainer.algorithm, note)
        # Devices have half a minute for each other when they first meet, and compiling takes one
        # process longer than another.
        self.hosts.barrier("compiled")
        stopping = (
            Together(self.hosts, self.stop, AHEAD) if self.hosts.several else Alone(self.stop)
        )
        evaluation = Evaluation.of_run(self.trainer, self.config)
        if self.directory is not None:
            sinks += savers(
                self.directory.path, self.config, evaluation, done, self.stack, note, self.hosts
            )
        if (enough := self.config.evaluation.get("stop_at")) is not None:
            sinks.append(StopAt(enough, note))
        loop = HostLoop(
            self.trainer, iterate, [*sinks, *self.own_sinks], self.clock, stopping, evaluation,
            None if self.directory is None else self.directory.path,
        )
        total = self.config.total_iterations
        if self.directory is not None and done:
            metrics = self.directory.metrics_path
            last = self.hosts.agreed("last", lambda: last_iteration(self.config, metrics))
            total = max(last, done)
        state = loop.run(state, done, total)
        # A signal may have come too late for an iteration to be agreed on.
        heard = [n for n in self.hosts.everyone("end", self.stop.number) if n is not None]
        self.stop.number = max(heard, default=None)
        return Result(
            policy=self.trainer.policy_of(state),
            state=state,
            metrics=columns(rows.rows),
            trainer=self.trainer,
            run_dir=None if self.directory is None else str(self.directory.path),
            stopped_by=self.stop.number,
        )


def _devices(devices: int, processes: int) -> str:
    return f"{devices} devices" + (f" of {processes} processes" if processes > 1 else "")


def write_first(
    writer: CheckpointWriter, state: Any, directory: RunDirectory, config: RunConfig
) -> None:
    """Makes a run of a directory: a configuration is only ever found beside a checkpoint."""
    with contextlib.closing(writer):
        writer.save(0, state)
        writer.wait()
    directory.write_config(config)
    directory.settle()
    directory.cut_metrics(0)
