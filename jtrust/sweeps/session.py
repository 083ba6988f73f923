"""A sweep in this process: its groups, one program after another."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jtrust import checks
from jtrust.hosts.stopping import Alone
from jtrust.runs.evaluation import Evaluation
from jtrust.runs.signals import StopRequest
from jtrust.startup import collector_paused
from jtrust.sweeps.directory import SweepDirectory, SweepRecord
from jtrust.sweeps.member_run import MemberRun
from jtrust.sweeps.members import Group, Member
from jtrust.sweeps.program import Program, rounded_up, slots_that_fit
from jtrust.sweeps.progress import SilentSweep, SweepProgress
from jtrust.sweeps.queue import Keeper, MakeSinks, Queue
from jtrust.sweeps.results import ManyResults, MemberResult, result_of
from jtrust.sweeps.slots import SlotLoop, Source
from jtrust.training.mesh import compiler_options

MakeProgress = Callable[[str, int], SweepProgress]


@dataclasses.dataclass
class SweepSession:
    """One call of `train_many` or `resume_many`.

    Attributes:
      groups, members: what is trained.
      record: how it is written down.
      directory: where it is kept, locked; None for nowhere.
      devices: on which runs are spread.
      at_once: how many share a program at a time; None for what fits.
      stop: whether a signal came.
      stack: closes whatever is opened.
      make_sinks, make_progress: as for `train_many`.
      expected: how many members there will be, where not all are known.
      wanted: how many are to share a program, where `at_once` says nothing; None for all.
    """

    groups: list[Group]
    members: list[Member]
    record: SweepRecord
    directory: SweepDirectory | None
    devices: list[jax.Device]
    at_once: int | None
    stop: StopRequest
    stack: contextlib.ExitStack
    make_sinks: MakeSinks | None
    make_progress: MakeProgress | None
    expected: int | None = None
    wanted: int | None = None

    def __post_init__(self):
        self._runs: dict[str, MemberRun] = {}

    @functools.cached_property
    def progress(self) -> SweepProgress:
        make = self.make_progress or (lambda *_: SilentSweep())
        config = self.members[0].config
        count = self.expected or len(self.members)
        progress = make(f"sweep of {count} on {config.env}", count)
        self.stack.callback(progress.close)
        return progress

    @functools.cached_property
    def keeper(self) -> Keeper:
        path = None if self.directory is None else self.directory.path
        return Keeper(path, self.progress, self.make_sinks, self.stack)

    def run(self) -> ManyResults:
        """Trains group after group."""
        self._say()
        for number, group in enumerate(self.groups):
            if self.stop.number is None:
                self._train(number, group)
        self.check_written()
        return ManyResults(
            [self._result(member) for member in self.members],
            None if self.directory is None else str(self.directory.path), self.stop.number,
        )

    def check_written(self) -> None:
        """Raises `OSError` where the last checkpoint of a run could not be written."""
        unwritten = [run.unwritten for run in self._runs.values() if run.unwritten]
        if unwritten:
            more = f"; so of {len(unwritten) - 1} runs more" if len(unwritten) > 1 else ""
            raise OSError(unwritten[0] + more)

    def _say(self) -> None:
        settings = len({str(m.settings) for m in self.members})
        programs = len(self.groups)
        self.progress.note(
            f"{len(self.members)} runs: {settings} setting{'s' * (settings > 1)} x "
            f"{len(self.members) // settings} seeds; {programs} "
            f"program{'s' * (programs > 1)} to compile"
            + (", one after another" if programs > 1 else "")
        )

    def _train(self, number: int, group: Group) -> None:
        """One program, from compiling it to its last run."""
        left = [m for m in group.members if m.name not in self.record.ended]
        left = [m for m in left if not self.keeper.is_finished(m)]
        for _ in range(len(group.members) - len(left)):
            self.progress.left("")
        if not left:
            return
        queue = Queue(group, left, self.keeper, self.progress, self.left)
        self.train_from(queue, number, group, len(left))

    def train_from(
        self, source: Source, number: int, group: Group, members: int | None = None
    ) -> None:
        """One program, its runs those that come from `source`, `members` of them."""
        program, iterate = self._compiled(group, members or self.expected or 1)
        if (group.slots, group.devices) != (program.slots, len(program.devices)):
            group.slots, group.devices = program.slots, len(program.devices)
            self._write(number, group)
        evaluation = Evaluation.of_run(program.trainer, group.members[0].config)
        SlotLoop(program, source, Alone(self.stop), evaluation).run(iterate)

    def enter(self, member: Member) -> None:
        """A member that was not known at the start."""
        if all(one.name != member.name for one in self.members):
            self.members.append(member)

    def is_over(self, member: Member) -> bool:
        """Whether a member has come to its last iteration."""
        run = self._runs.get(member.name)
        return run.finished if run is not None else self.keeper.is_finished(member)

    def rows(self, member: Member) -> Sequence[Any]:
        """Metrics of a member's run, in this call or stored."""
        if self.directory is not None:
            return self.keeper.rows(member)
        run = self._runs.get(member.name)
        return [] if run is None else run.rows

    def _compiled(self, group: Group, left: int) -> tuple[Program, Callable]:
        """The program of as many slots as are wanted, or as fit into memory."""
        devices = self._devices(group, left)
        slots = self._slots(group, left, len(devices))
        while True:
            program = Program(group.trainer, group.varied, slots, tuple(devices))
            with collector_paused():
                iterate = program.lower(compiler_options(program.mesh)).compile()
            if (group.slots, group.devices) == (slots, len(devices)):
                return program, iterate  # it fitted before, and another number rounds otherwise
            fitting, why = slots_that_fit(iterate, devices, slots)
            if fitting >= slots:
                return program, iterate
            if self.at_once is not None:
                raise checks.BadArgument(
                    "at_once", self.at_once, f"do not fit into memory: {why}; at most {fitting} do"
                )
            self.progress.note(
                f"{slots} at once do not fit into memory ({why}): {fitting} at once"
            )
            slots = fitting

    def _devices(self, group: Group, left: int) -> list[jax.Device]:
        """Those that the group's program is for: as before, where it was compiled before."""
        count = min(len(self.devices), max(left, 1), self.at_once or left or 1)
        if group.devices is not None:
            if group.devices > len(self.devices):
                self.progress.note(
                    f"going on with {len(self.devices)} devices in place of {group.devices}: the "
                    "same up to rounding"
                )
            else:
                count = group.devices
        return self.devices[:count]

    def _slots(self, group: Group, left: int, devices: int) -> int:
        if group.slots is not None:
            return rounded_up(group.slots, devices)
        wanted = self.at_once or self.wanted or left
        wanted = max(min(wanted, left), 1)
        if self.at_once is not None:  # and no more
            return max(wanted // devices, 1) * devices
        return rounded_up(wanted, devices)

    def left(self, run: MemberRun) -> None:
        self._runs[run.member.name] = run
        if run.ended:
            self.give_up(run.member.name, run.ended)

    def give_up(self, name: str, why: str) -> None:
        """A run ends, or does not begin, before its last iteration."""
        self.record.ended[name] = why
        if self.directory is not None:
            self.directory.write_record(self.record)

    def _write(self, number: int, group: Group) -> None:
        entry = self.record.groups[number]
        entry["slots"], entry["devices"] = group.slots, group.devices
        if self.directory is not None:
            self.directory.write_record(self.record)

    def _result(self, member: Member) -> MemberResult:
        run = self._runs.get(member.name)
        run_dir = None if self.directory is None else str(self.directory.path / member.name)
        return result_of(member, run, run_dir, self.record.ended.get(member.name, ""))
