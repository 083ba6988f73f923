"""A member of a sweep, from the host's side: what its run is told, and where that goes."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Sequence
from typing import Any

from jtrust import checks
from jtrust.runs.directory import RunDirectory
from jtrust.runs.host_loop import Clock
from jtrust.runs.sinks import IterationInfo, Rows, Sink, Watch
from jtrust.sweeps.members import Member


class MemberRun:
    """One run of a sweep in this process.

    Attributes:
      member: which.
      directory: where it is kept, locked; None for nowhere.
      done: iterations behind it when it began here.
      rows: of its iterations.
      ended: why it ended before its last iteration; "" where it did not.
      acting: what its policy is made of, once it has ended.
      finished: whether it came to its last iteration.
    """

    def __init__(self, member: Member, directory: RunDirectory | None, done: int = 0):
        self.member, self.directory, self.done = member, directory, done
        self.total = member.config.total_iterations
        self.ended, self.finished = "", False
        self.acting: Any = None
        self.stack = contextlib.ExitStack()
        if directory is not None:
            self.stack.callback(directory.unlock)
            self.stack.callback(directory.abandon)
        self._stop = ""
        self._rows = Rows()
        self._sinks: list[Sink] = []
        self._clock: Clock | None = None

    @property
    def rows(self) -> Sequence[Any]:
        return self._rows.rows

    def begin(self, sinks: Sequence[Sink], note: Callable[[str], None]) -> None:
        """Has these sinks, which the run's stack closes, told of what follows."""
        self._sinks = [self._rows, Watch(self.member.label, note), *sinks]
        self._clock = Clock(self.member.trainer.steps_per_iteration)

    def stop(self, why: str = "stopped") -> None:
        """Ends it behind the iterations that are under way, with a checkpoint."""
        self._stop = self._stop or why

    def is_last(self, iteration: int) -> bool:
        """Whether no iteration follows this one, which is under way."""
        return iteration == self.total or bool(self._stop)

    def wants_state(self, iteration: int) -> bool:
        wanted = [sink.wants_state(iteration) for sink in self._sinks]  # each is asked
        return any(wanted)

    def wants_policy(self, iteration: int) -> bool:
        wanted = [sink.wants_policy(iteration) for sink in self._sinks]
        return any(wanted)

    def tell(self, iteration: int, row: dict[str, Any], state: Any, acting: Any) -> None:
        """What became of an iteration.

        Args:
          iteration: its number.
          row: its metrics.
          state, acting: after it, where a sink wants them.
        """
        assert self._clock is not None
        step = iteration * self.member.trainer.steps_per_iteration
        info = self._info(
            iteration, {"step": step, "iteration": iteration, **row, **self._clock.read()}, state,
            acting,
        )
        try:
            for sink in self._sinks:
                sink.on_iteration(info)
        except checks.TrainingFailed as error:
            self.fail(str(error))

    def fail(self, why: str) -> None:
        """Ends it at once; the checkpoints before are as they were."""
        self.ended = why
        self.stack.close()

    def end(self, iteration: int, state: Any, acting: Any) -> None:
        """Its last iteration was told of; `state` is that behind it."""
        if self.ended:
            return
        self.acting = acting
        self.finished = iteration >= self.total
        self.ended = "" if self.finished else self._stop
        row = self._rows.rows[-1] if self._rows.rows else {}
        info = self._info(iteration, dict(row), state, acting)
        for sink in self._sinks:
            sink.on_end(info)
        self.stack.close()

    def _info(self, iteration: int, row: dict[str, Any], state: Any, acting: Any) -> IterationInfo:
        trainer = self.member.trainer
        return IterationInfo(
            iteration, iteration * trainer.steps_per_iteration, types.MappingProxyType(row),
            trainer, self.stop, state, acting,
            None if self.directory is None else self.directory.path,
        )
