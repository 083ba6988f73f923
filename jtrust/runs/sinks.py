"""What the loop on the host tells of a run: sinks, one small class for each thing done with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from jtrust import checks
from jtrust.environments.warp_physics import MORE_ROOM
from jtrust.policy import Policy
from jtrust.training import Trainer, TrainState

Row = Mapping[str, float | int | None]


@dataclasses.dataclass(frozen=True)
class IterationInfo:
    """What became of one iteration, on the host.

    Iterations that follow are under way on the device by then; reading this never slows them.

    Attributes:
      iteration: its number, from 1 on.
      step: environment steps so far.
      row: its metrics, as in metrics.jsonl; {} at the end of a session that made none.
      trainer: what is trained.
      stop: ends the run behind the iterations that are under way, with a checkpoint.
      state: the training state after it, a copy, where a sink wants it (`Sink.wants_state`).
      acting: what its policy is made of, where a sink wants that (`Sink.wants_policy`).
      run_dir: where the run is kept; None for nowhere.
    """

    iteration: int
    step: int
    row: Row
    trainer: Trainer
    stop: Callable[[], None]
    state: TrainState | None = None
    acting: tuple[Any, Any] | None = None
    run_dir: Path | None = None

    def policy(self) -> Policy:
        """The policy after this iteration.

        Raises:
          RuntimeError: no sink said beforehand that it wants it.
        """
        if self.acting is None:
            raise RuntimeError(
                f"iteration {self.iteration}: the policy is gone; have your sink's "
                "wants_policy(iteration) return True for it"
            )
        return self.trainer.make_policy(*self.acting)


class Sink:
    """Is told of each iteration, in order and in the main thread. Override what you need."""

    def wants_policy(self, iteration: int) -> bool:
        """Whether `info.policy()` will be asked for after this iteration, which is under way."""
        return False

    def wants_state(self, iteration: int) -> bool:
        """Whether `info.state` will be; a copy of all environments, so seldom."""
        return False

    def on_iteration(self, info: IterationInfo) -> None:
        """After each iteration, two or so behind the device."""

    def on_end(self, info: IterationInfo) -> None:
        """After the last one, with its state and policy; not where the run fails."""

    def close(self) -> None:
        """However the run ended."""


class Calls(Sink):
    """A function as a sink: called with each `IterationInfo`."""

    def __init__(self, function: Callable[[IterationInfo], None]):
        self._function = function

    def on_iteration(self, info: IterationInfo) -> None:
        self._function(info)


def as_sinks(given: Iterable[Sink | Callable[[IterationInfo], None]]) -> list[Sink]:
    """Sinks of a user's own.

    Raises:
      BadArgument: something that is neither a sink nor callable.
    """
    sinks = []
    for one in given:
        if not isinstance(one, Sink) and not callable(one):
            raise checks.BadArgument(
                "sinks", one, "must be of jtrust.Sink objects, or functions of an IterationInfo"
            )
        sinks.append(one if isinstance(one, Sink) else Calls(one))
    return sinks


class Rows(Sink):
    """Keeps all rows."""

    def __init__(self):
        self.rows: list[Row] = []

    def on_iteration(self, info: IterationInfo) -> None:
        self.rows.append(info.row)


class Watch(Sink):
    """Tells of a simulator that runs out of room, and ends a run in which nothing is finite.

    Args:
      env: its name.
      note: says something to a person.
    """

    def __init__(self, env: str, note: Callable[[str], None]):
        self._env, self._note, self._told = env, note, False

    def on_iteration(self, info: IterationInfo) -> None:
        row = info.row
        if row["environment/overflow"] and not self._told:
            self._told = True
            self._note(
                f"warning: at {row['environment/overflow']:,} steps of iteration "
                f"{info.iteration} {MORE_ROOM}; further ones are counted in environment/overflow"
            )
        if cast(int, row["environment/nonfinite"]) >= info.trainer.steps_per_iteration:
            raise checks.TrainingFailed(
                f"{self._env} gave NaN or infinity at every step of iteration {info.iteration}; "
                f"stopped, and the checkpoints before it are as they were"
            )
