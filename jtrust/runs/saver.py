"""Checkpoints on their way to the disk while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from jtrust.runs.checkpoints import CheckpointWriter
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
