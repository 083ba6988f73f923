"""The best policy of a run by its evaluations: kept, and a reason to end."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jtrust.hosts.group import Hosts
from jtrust.runs.checkpoint_reader import CheckpointReader
from jtrust.runs.checkpoints import ALONE, CheckpointWriter
from jtrust.runs.config import RunConfig
from jtrust.runs.evaluation import RETURN, Evaluation
from jtrust.runs.host_loop import AHEAD
from jtrust.runs.rows import read_rows
from jtrust.runs.sinks import IterationInfo, Sink

BEST = "best"


class KeepBest(Sink):
    """Keeps the checkpoint of the highest mean return of an evaluation, in `best/`.

    Stands before what writes the others, and has its own written before them: a run that goes on
    from a checkpoint finds the best one up to there.

    Args:
      writer: writes into `best/`, and keeps one.
      evaluation: of the run.
      rows: of the run up to where it goes on.
      note: says something to a person.
      hosts: the processes of the run, all of which write, or none.
    """

    def __init__(
        self, writer: CheckpointWriter, evaluation: Evaluation, rows: Iterable[Mapping[str, Any]],
        note: Callable[[str], None], hosts: Hosts = ALONE,
    ):
        self._hosts = hosts
        self._writer, self._evaluation, self._note = writer, evaluation, note
        returns = [r for row in rows if (r := row.get(RETURN)) is not None]
        self._best = max(returns, default=-float("inf"))

    def wants_state(self, iteration: int) -> bool:
        return self._evaluation.wanted(iteration)

    def on_iteration(self, info: IterationInfo) -> None:
        if info.state is None or not self.wants_state(info.iteration):
            return
        value = info.row.get(RETURN)
        if not self._hosts.agreed("best", lambda: value is not None and value > self._best):
            return
        self._best = self._best if value is None else value
        try:
            self._writer.save(info.step, info.state)
        except OSError as error:  # of the one before
            self._note(f"warning: {error}; training goes on")
            self._writer.save(info.step, info.state)

    def on_end(self, info: IterationInfo) -> None:
        try:
            self._writer.wait()
        except OSError as error:
            self._note(f"warning: {error}")


class StopAt(Sink):
    """Ends a run once an evaluation's mean return is high enough: `AHEAD` iterations later, which
    are under way by then.

    Args:
      enough: that return.
      note: says something to a person.
    """

    def __init__(self, enough: float, note: Callable[[str], None]):
        self._enough, self._note, self._told = enough, note, False

    def on_iteration(self, info: IterationInfo) -> None:
        value = info.row.get(RETURN)
        if value is not None and value >= self._enough and not self._told:
            self._told = True
            self._note(
                f"{RETURN} {value:.5g} of step {info.step:,} is at least {self._enough:g}: enough"
            )
            info.stop()


def last_iteration(config: RunConfig, metrics: Path) -> int:
    """A run's last iteration, as far as its stored rows tell: an earlier one than that of its last
    step where one of them was enough for `StopAt`. Without that, they are not read."""
    enough = config.evaluation.get("stop_at")
    total = config.total_iterations
    if enough is None:
        return total
    good = (
        row["iteration"] for row in read_rows(metrics)
        if (value := row.get(RETURN)) is not None and value >= enough
    )
    first = next(good, total)
    return min(total, first + AHEAD)


def make_place(run_dir: Path, done: int) -> Path:
    """`best/` in a run's directory; what a run that goes on from step `done` will come to again is
    put aside in it."""
    path = run_dir / BEST
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    for step in CheckpointReader(path).steps():
        if step > done:
            old = path / str(step)
            names = (old.with_name(f"{step}.before-{n}") for n in itertools.count(1))
            old.rename(next(name for name in names if not os.path.lexists(name)))
    return path
