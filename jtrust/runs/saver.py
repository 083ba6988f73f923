"""Checkpoints on their way to the disk while training goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import cast

from jtrust.hosts.group import Hosts
from jtrust.runs.best import KeepBest, make_place
from jtrust.runs.checkpoints import ALONE, CheckpointWriter
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import METRICS
from jtrust.runs.evaluation import Evaluation
from jtrust.runs.rows import read_rows
from jtrust.runs.sinks import IterationInfo, Sink
from jtrust.training import TrainState


class Saver(Sink):
    """A checkpoint every so many iterations and behind the last; one that fails is told of, and
    the next one tried, but where others would wait for this process: there it ends the run.

    Stands behind what writes rows, so that a run killed between the two has the row of every
    iteration that a checkpoint has gone through.

    Args:
      writer: writes them.
      every: iterations from one to the next.
      last: step of the newest that is there.
      note: says something to a person.
      goes_on: whether training does where a checkpoint fails.
    """

    def __init__(
        self, writer: CheckpointWriter, every: int, last: int, note: Callable[[str], None],
        goes_on: bool = True,
    ):
        self._writer, self._every, self._last, self._note = writer, every, last, note
        self._goes_on = goes_on

    def wants_state(self, iteration: int) -> bool:
        return iteration % self._every == 0

    def on_iteration(self, info: IterationInfo) -> None:
        if info.state is not None and self.wants_state(info.iteration):
            self._save(info.step, info.state)

    def on_end(self, info: IterationInfo) -> None:
        if info.step != self._last:
            self._save(info.step, cast(TrainState, info.state))
        self._writer.wait()

    def _save(self, step: int, state: TrainState) -> None:
        try:
            self._writer.save(step, state)
        except OSError as error:
            if not self._goes_on:
                raise
            self._note(f"warning: {error}; training goes on")
            self._writer.save(step, state)
        self._last = step


def savers(
    path: Path, config: RunConfig, evaluation: Evaluation | None, done: int,
    stack: contextlib.ExitStack, note: Callable[[str], None], hosts: Hosts = ALONE,
    pool: Executor | None = None,
) -> list[Sink]:
    """What writes the checkpoints of a run: the best one, where it is kept, then the others.

    Args:
      path: of the run's directory.
      config: of the run.
      evaluation: of its policy, or None.
      done: iterations behind it.
      stack: whatever ends the run, closes them; the directory is unlocked behind the last byte.
      note: says something to a person.
      hosts: the processes of the run.
      pool: writes, one behind the other; by default a thread for this run.
    """
    pool = pool or stack.enter_context(ThreadPoolExecutor(1, "checkpoint"))
    step = done * config.steps_per_iteration
    found: list[Sink] = []
    if evaluation is not None and config.evaluation.get("keep_best"):
        place = hosts.agreed("best", lambda: str(make_place(path, step)))
        best = CheckpointWriter(Path(place), 1, hosts, pool)
        stack.callback(best.close)
        found.append(KeepBest(best, evaluation, read_rows(path / METRICS), note, hosts))
    writer = CheckpointWriter(path, config.keep_checkpoints, hosts, pool)
    stack.callback(writer.close)
    return [*found, Saver(writer, config.checkpoint_every, step, note, not hosts.several)]
