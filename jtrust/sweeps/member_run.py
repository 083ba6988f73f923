"""A member of a sweep, from the host's side: what its run is told, and where that goes."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Sequence
from typing import Any

from jtrust import checks
from jtrust.runs.cost_watch import cost_watch
from jtrust.runs.directory import RunDirectory
from jtrust.runs.host_loop import AHEAD, Clock
from jtrust.runs.sinks import IterationInfo, Rows, Sink, Watch
from jtrust.sweeps.members import Member


class MemberRun:
    """One run of a sweep in this process.

    Attributes:
      member: which.
      directory: where it is kept, locked; None for nowhere.
      done: iterations behind it when it began here.
      last: its last iteration, as far as that is known.
      rows: of its iterations.
      ended: why it ended before its last iteration; "" where it did not.
      acting: what its policy is made of, once it has ended.
      finished: whether it came to its last iteration.
      unwritten: what could not be written at its end; "" where all could. It may go on from there.
    """

    def __init__(self, member: Member, directory: RunDirectory | None, done: int = 0):
        self.member, self.directory, self.done = member, directory, done
        self.total = self.last = member.config.total_iterations
        self._told = done
        self.ended, self.finished = "", False
        self.acting: Any = None
        self.unwritten = ""
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
        told = lambda text: note(f"{self.member.label}: {text}")  # noqa: E731
        self._sinks = [
            self._rows, *sinks, *cost_watch(self.member.trainer.algorithm, told)
        ]
        self._watch = Watch(self.member.label, note)
        self._clock = Clock(self.member.trainer.steps_per_iteration)

    def stop(self, why: str = "stopped") -> None:
        """Ends it with a checkpoint, behind the iterations that a run alone has under way."""
        self.end_at(self._told + AHEAD, why)

    def end_at(self, iteration: int, why: str = "stopped") -> None:
        """Has no iteration follow this one."""
        if not self._stop and iteration < self.total:
            self._stop, self.last = why, iteration

    def is_last(self, iteration: int) -> bool:
        """Whether no iteration follows this one, which is about to be under way."""
        return iteration >= self.last

    def wants(self, iteration: int) -> tuple[bool, bool]:
        """Whether sinks want the state after an iteration, and the policy; each is asked once."""
        states = [sink.wants_state(iteration) for sink in self._sinks]
        policies = [sink.wants_policy(iteration) for sink in self._sinks]
        return any(states), any(policies)

    def tell(self, iteration: int, row: dict[str, Any], state: Any, acting: Any) -> None:
        """What became of an iteration.

        Args:
          iteration: its number.
          row: its metrics.
          state, acting: after it, where a sink wants them.
        """
        assert self._clock is not None
        self._told = iteration
        step = iteration * self.member.trainer.steps_per_iteration
        info = self._info(
            iteration, {"step": step, "iteration": iteration, **row, **self._clock.read()}, state,
            acting,
        )
        try:
            for sink in self._sinks:
                sink.on_iteration(info)
            self._watch.on_iteration(info)
        except checks.TrainingFailed as error:
            self.fail(str(error))

    def fail(self, why: str) -> None:
        """Ends it at once; the checkpoints before are as they were."""
        self.ended = why
        self.stack.close()

    def end(self, iteration: int, state: Any, acting: Any) -> None:
        """Its last iteration was told of; `state` is that behind it.

        What cannot be written is this run's trouble alone: `unwritten` says so.
        """
        if self.ended:
            return
        self.acting = acting
        self.finished = iteration >= self.total
        self.ended = "" if self.finished else self._stop
        row = self._rows.rows[-1] if self._rows.rows else {}
        info = self._info(iteration, dict(row), state, acting)
        try:
            for sink in self._sinks:
                sink.on_end(info)
        except OSError as error:
            self.unwritten, self.finished = str(error), False
        self.stack.close()

    def _info(self, iteration: int, row: dict[str, Any], state: Any, acting: Any) -> IterationInfo:
        trainer = self.member.trainer
        return IterationInfo(
            iteration, iteration * trainer.steps_per_iteration, types.MappingProxyType(row),
            trainer, self.stop, state, acting,
            None if self.directory is None else self.directory.path,
        )
