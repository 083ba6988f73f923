"""The runs of a sweep on their way through the slots: directories, checkpoints, metrics."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jtrust import checks
from jtrust.runs.best import StopAt, last_iteration
from jtrust.runs.checkpoints import CheckpointReader, CheckpointWriter
from jtrust.runs.directory import CONFIG, METRICS, RunDirectory
from jtrust.runs.evaluation import Evaluation
from jtrust.runs.metrics import open_writers
from jtrust.runs.rows import read_rows
from jtrust.runs.run import GivenSinks
from jtrust.runs.saver import savers
from jtrust.runs.session import write_first
from jtrust.runs.sinks import Sink, as_sinks
from jtrust.runs.upgrades import upgraded
from jtrust.sweeps.member_run import MemberRun
from jtrust.sweeps.members import Group, Member
from jtrust.sweeps.progress import SweepProgress
from jtrust.sweeps.slots import Arrival

MakeSinks = Callable[[Member], GivenSinks]


class Keeper:
    """Begins the runs of members, and goes on with those that are there already.

    Args:
      path: of the sweep's directory; None keeps nothing.
      progress: shows it.
      make_sinks: what else is told of a member's run.
      stack: closes what is opened.
    """

    def __init__(
        self, path: Path | None, progress: SweepProgress, make_sinks: MakeSinks | None,
        stack: contextlib.ExitStack,
    ):
        self._path, self._progress, self._make_sinks = path, progress, make_sinks
        self._stack = stack
        # Of all members one behind the other: half of a checkpoint is Python's work.
        self._pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1, "checkpoint"))

    def is_finished(self, member: Member) -> bool:
        """Whether a whole checkpoint of its last iteration is there."""
        reader = self._reader(member)
        if reader is None:
            return False
        last = last_iteration(member.config, reader.directory / METRICS)
        step = last * member.trainer.steps_per_iteration
        if max(reader.steps(), default=-1) < step:
            return False
        return reader.newest_whole(None, policy_only=True)[0] >= step

    def rows(self, member: Member) -> list[dict[str, Any]]:
        """Metrics of a member's run, as they are stored."""
        return [] if self._path is None else read_rows(self._path / member.name / METRICS)

    def prepare(self, member: Member, group: Group) -> Arrival:
        """A member that is to have a slot.

        Raises:
          BadArgument: another process has its directory, or none of its checkpoints is whole.
        """
        values = group.values(member)
        if self._path is None:
            return Arrival(MemberRun(member, None), values, None)
        path = self._path / member.name
        reader = self._reader(member)
        if reader is None:
            return Arrival(self._held(member, RunDirectory.create(path)), values, None)
        directory = RunDirectory.open(path)[0]
        directory.lock()
        run = self._held(member, directory)
        like = jax.eval_shape(member.trainer.init, jax.random.key(0))
        step, arrays = reader.newest_whole(None, like=like)
        run.done = min(step // member.trainer.steps_per_iteration, run.total)
        directory.write_config(member.config)
        directory.cut_metrics(run.done)
        run.end_at(max(last_iteration(member.config, path / METRICS), run.done))
        return Arrival(run, values, upgraded(arrays))

    def _reader(self, member: Member) -> CheckpointReader | None:
        """Of its run, where it has one already."""
        path = None if self._path is None else self._path / member.name
        return CheckpointReader(path) if path and (path / CONFIG).exists() else None

    def _held(self, member: Member, directory: RunDirectory) -> MemberRun:
        run = MemberRun(member, directory)
        self._stack.callback(run.stack.close)
        return run

    def begin(self, arrivals: Sequence[Arrival], first: dict[str, np.ndarray]) -> None:
        """Makes runs of the directories of those that are new, and opens what all write to.

        Args:
          arrivals: who begins.
          first: their states before the first iteration, [arrivals, ...] by name.
        """
        for i, arrival in enumerate(arrivals):
            directory = arrival.run.directory
            if arrival.arrays is None and directory is not None:
                state = {name: x[i] for name, x in first.items()}
                writer = CheckpointWriter(directory.path)
                write_first(writer, state, directory, arrival.run.member.config)
            self._open(arrival.run)

    def _open(self, run: MemberRun) -> None:
        member, config = run.member, run.member.config
        sinks: list[Sink] = []

        def note(text: str) -> None:
            self._progress.note(f"{member.name}: {text}")

        evaluation = Evaluation.of_run(member.trainer, config)
        if run.directory is not None:
            step = run.done * config.steps_per_iteration
            sinks += open_writers(run.stack, run.directory, config, step)
            sinks += savers(
                run.directory.path, config, evaluation, run.done, run.stack, note, pool=self._pool
            )
        if (enough := config.evaluation.get("stop_at")) is not None:
            sinks.append(StopAt(enough, note))
        own: list[Sink] = as_sinks(self._make_sinks(member)) if self._make_sinks else []
        for sink in own:
            run.stack.callback(sink.close)
        run.begin([*sinks, *own], note)


class Queue:
    """The members of a group, in order, each once.

    Args:
      group: whose.
      members: those that are to run.
      keeper: begins them.
      progress: shows it.
      left: told of each run that has ended.
    """

    def __init__(
        self, group: Group, members: Iterable[Member], keeper: Keeper, progress: SweepProgress,
        left: Callable[[MemberRun], None],
    ):
        self._group, self._keeper, self._progress = group, keeper, progress
        self._waiting = collections.deque(members)
        self._left, self._only_begins = left, True

    @property
    def more(self) -> bool:
        return bool(self._waiting)

    def arrivals(self, free: int) -> Sequence[Arrival]:
        found: list[Arrival] = []
        while self._waiting and len(found) < free:
            member = self._waiting.popleft()
            try:
                found.append(self._keeper.prepare(member, self._group))
            except checks.BadArgument as error:
                if self._only_begins:
                    raise
                # The others train already: it is left for another time.
                self._progress.note(f"{member.name}: left out: {error.as_option()}")
                self._progress.left(member.name)
        self._only_begins = False
        return found

    def begun(self, arrivals: Sequence[Arrival], first: dict[str, np.ndarray]) -> None:
        self._keeper.begin(arrivals, first)

    def told(self, run: MemberRun, iteration: int) -> None:
        self._progress.update(run.member.name, run.rows[-1], run.total)

    def left(self, run: MemberRun) -> None:
        if run.ended:
            self._progress.note(f"{run.member.name}: {run.ended}")
        self._progress.left(run.member.name)
        self._left(run)
