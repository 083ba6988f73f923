"""The loop on the host over the slots of a program: who is in which, and what they are told."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jtrust.hosts.stopping import Stopping
from jtrust.runs.arrays import from_arrays, to_arrays
from jtrust.runs.evaluation import Evaluation, without
from jtrust.runs.host_loop import AHEAD, copied
from jtrust.runs.metrics import to_row
from jtrust.sweeps.member_run import MemberRun
from jtrust.sweeps.program import Program
from jtrust.training import TrainState


class _Entry(NamedTuple):
    """Whose iteration is under way."""

    slot: int
    run: MemberRun
    iteration: int
    last: bool
    wants_state: bool
    wants_policy: bool


@dataclasses.dataclass(frozen=True)
class Arrival:
    """A run that takes a slot.

    Attributes:
      run: which.
      values: its varied numbers, [varied].
      arrays: of its newest checkpoint, by name; None for one that begins.
    """

    run: MemberRun
    values: np.ndarray
    arrays: dict[str, np.ndarray] | None


class Source(Protocol):
    """Where runs come from."""

    @property
    def more(self) -> bool:
        """Whether there may be runs that have no slot yet."""

    def arrivals(self, free: int) -> Sequence[Arrival]:
        """The next runs, at most `free` of them; fewer where no more are there now."""

    def begun(self, arrivals: Sequence[Arrival], first: dict[str, np.ndarray]) -> None:
        """They have their slots; `first` has the arrays [arrivals, ...] of all states before the
        first iteration, by name."""

    def told(self, run: MemberRun, iteration: int) -> None:
        """A run's sinks were told of an iteration."""

    def left(self, run: MemberRun) -> None:
        """A run has ended, one way or the other."""


class SlotLoop:
    """Iterates all slots together until no run is left or somebody stops it.

    Args:
      program: of the members.
      source: of runs.
      stopping: whether to go on.
      evaluation: of one member, or None.
    """

    def __init__(
        self, program: Program, source: Source, stopping: Stopping, evaluation: Evaluation | None
    ):
        self._program, self._source, self._stopping = program, source, stopping
        self._evaluation = evaluation
        self._evaluate = None if evaluation is None else program.evaluation(evaluation.of)
        slots = program.slots
        self._runs: list[MemberRun | None] = [None] * slots
        self._iterations = [0] * slots
        self._values = np.zeros((slots, len(program.varied)), np.float32)
        self._pending: collections.deque = collections.deque()
        self._placed: Any = None
        self._states: Any = None

    @property
    def _busy(self) -> bool:
        return any(run is not None for run in self._runs)

    def _fill(self) -> None:
        """Puts the next runs into the slots that are free."""
        free = [i for i, run in enumerate(self._runs) if run is None]
        arrivals = list(self._source.arrivals(len(free))) if free else []
        if not arrivals:
            return
        seeds = [0] * self._program.slots
        places = free[:len(arrivals)]
        for place, arrival in zip(places, arrivals, strict=True):
            self._runs[place] = arrival.run
            self._iterations[place] = arrival.run.done
            self._values[place] = arrival.values
            seeds[place] = arrival.run.member.seed
        fresh = self._program.init(seeds)
        arrays = to_arrays(fresh)
        first = {name: x[np.asarray(places)] for name, x in arrays.items()}
        stored = {p: a.arrays for p, a in zip(places, arrivals, strict=True) if a.arrays}
        if stored:
            where = str(arrivals[0].run.member.name)
            fresh = self._program.placed(
                from_arrays(_with_stored(arrays, stored), self._program.like, where)
            )
        if self._states is None:
            self._states = fresh
        else:
            mask = np.zeros(self._program.slots, bool)
            mask[places] = True
            self._states = self._program.replaced(self._states, mask, fresh)
        self._placed = jax.device_put(self._values, self._program.sharding)
        self._source.begun(arrivals, first)

    def run(self, iterate: Callable) -> None:
        """Until no run is left; those that a signal stops are ended with their states."""
        self._fill()
        iteration = 0
        while self._busy:
            iteration = self._iterate(iterate, iteration)
            if self._busy:
                self._end_all()
                return
            self._fill()  # with what may follow from the last ones

    def _iterate(self, iterate: Callable, iteration: int) -> int:
        """Until no slot is taken, or somebody stops it; how many iterations there were."""
        while self._busy and self._stopping.goes_on(iteration):
            if len(self._pending) >= AHEAD:
                # Before the next: a run that this ends has its last one as early as it would alone.
                self._tell(*self._pending.popleft())
                if self._source.more and not all(self._runs):
                    self._drain()  # who comes next may depend on what they have come to
                    self._fill()
                if not self._busy:
                    break
            self._states, metrics = iterate(self._placed, self._states)
            iteration += 1
            entries = self._entries()
            self._pending.append((entries, metrics, *self._copies(entries)))
            self._let_go(entries)
            if self._source.more and not self._busy:
                self._drain()
                self._fill()
        self._drain()
        return iteration

    def _drain(self) -> None:
        while self._pending:
            self._tell(*self._pending.popleft())

    def _entries(self) -> list[_Entry]:
        found = []
        for i, run in enumerate(self._runs):
            if run is not None:
                self._iterations[i] += 1
                number = self._iterations[i]
                found.append(_Entry(i, run, number, run.is_last(number), *run.wants(number)))
        return found

    def _copies(self, entries: list[_Entry]) -> tuple[Any, Any, Any]:
        """(states, what policies are made of, evaluations) of all slots, where any run wants."""
        evaluation = self._evaluation
        evaluated = None
        wanted = evaluation is not None and any(evaluation.wanted(e.iteration) for e in entries)
        policies = any(e.wants_policy for e in entries)
        acting = (self._states.policy, self._states.observation_statistics)
        kept = None
        if any(e.wants_state or e.last for e in entries):
            kept = copied(self._states)
            acting = (kept.policy, kept.observation_statistics)
        elif policies or wanted:
            acting = copied(acting)
        if wanted and self._evaluate is not None:
            evaluated = self._evaluate(acting)
        return kept, acting if policies else None, evaluated

    def _let_go(self, entries: list[_Entry]) -> None:
        """Frees the slots of runs whose last iteration is under way."""
        for entry in entries:
            if entry.last:
                self._runs[entry.slot] = None

    def _tell(
        self, entries: list[_Entry], metrics: Any, states: Any, acting: Any, evaluated: Any
    ) -> None:
        metrics, evaluated = jax.device_get((metrics, evaluated))
        arrays = None if states is None else to_arrays(states)
        acting = None if acting is None else jax.device_get(acting)
        for i, run, iteration, last, wants_state, wants_policy in entries:
            if run.ended:  # it failed, and iterations were under way
                continue
            row = to_row({name: x[i] for name, x in metrics.items()})
            if self._evaluation is not None:
                now = self._evaluation.wanted(iteration)
                row |= to_row({k: x[i] for k, x in evaluated.items()}) if now else without(
                    self._evaluation.trainer.environment.costs
                )
            state = mine = None
            if arrays is not None and (wants_state or last):
                state = self._of_slot(arrays, i)
                mine = _acting(state)
            elif wants_policy:
                mine = jax.tree.map(lambda x, i=i: x[i], acting)
            run.tell(iteration, row, state, mine)
            self._source.told(run, iteration)
            if last:
                run.end(iteration, state, mine)
            if run.ended or last:
                self._leave(run)

    def _leave(self, run: MemberRun) -> None:
        for i, other in enumerate(self._runs):
            if other is run:
                self._runs[i] = None
        self._source.left(run)

    def _end_all(self) -> None:
        arrays = to_arrays(self._states)
        for i, run in enumerate(self._runs):
            if run is not None:
                state = self._of_slot(arrays, i)
                run.end(self._iterations[i], state, _acting(state))
                self._leave(run)

    def _of_slot(self, arrays: dict[str, np.ndarray], i: int) -> TrainState:
        """The state in a slot, on the host."""
        mine = {name: x[i] for name, x in arrays.items()}
        return from_arrays(mine, self._program.like_one, f"slot {i}")


def _acting(state: TrainState) -> tuple[Any, Any]:
    return state.policy, state.observation_statistics


def _with_stored(
    arrays: dict[str, np.ndarray], stored: dict[int, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays of all slots, with those of some runs' checkpoints in their places."""
    found = {name: x.copy() for name, x in arrays.items()}
    for place, of_run in stored.items():
        for name, value in of_run.items():
            found[name][place] = value
    return found
