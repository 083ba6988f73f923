"""What a sweep comes to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jtrust.policy import Policy
from jtrust.runs.evaluate import load_policy
from jtrust.runs.result import columns
from jtrust.sweeps.comparison import Comparison, compare, compare_rows
from jtrust.sweeps.members import Member


@dataclasses.dataclass(frozen=True)
class MemberResult:
    """What one run of a sweep came to.

    Attributes:
      member: which.
      metrics: {key: array over the iterations of this call}; NaN where there was no value.
      run_dir: where it is kept, or None.
      ended: why it ended before its last iteration; "" where it came to it, or may still.
      acting: what its policy is made of; None where it ended in another call, or failed.
    """

    member: Member
    metrics: dict[str, np.ndarray]
    run_dir: str | None
    ended: str
    acting: Any = None

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def seed(self) -> int:
        return self.member.seed

    @property
    def settings(self) -> dict[str, Any]:
        return self.member.settings

    @property
    def policy(self) -> Policy:
        """Its policy; of its newest checkpoint where it did not end in this call.

        Raises:
          BadArgument: it failed, and is kept nowhere.
        """
        if self.acting is not None:
            return self.member.trainer.make_policy(*self.acting)
        trainer = self.member.trainer
        return load_policy(self.run_dir or "", policy_network=trainer.custom_policy)


@dataclasses.dataclass(frozen=True)
class ManyResults:
    """What a sweep came to.

    Attributes:
      members: of each run, in the order in which they were asked for.
      run_dir: where the sweep is kept, or None.
      stopped_by: number of the signal that ended it early, or None.
    """

    members: Sequence[MemberResult]
    run_dir: str | None
    stopped_by: int | None

    def compare(self, metric: str = "return") -> Comparison:
        """The table over settings, with intervals over seeds."""
        if self.run_dir is not None:
            return compare([self.run_dir], metric)
        return compare_rows(
            [(m.name, m.seed, m.settings, m.metrics, m.ended) for m in self.members], metric
        )


def result_of(member: Member, run: Any, run_dir: str | None, ended: str) -> MemberResult:
    """Of a member whose `MemberRun` was in this call, or None for one that was not."""
    if run is None:
        return MemberResult(member, {}, run_dir, ended)
    return MemberResult(member, columns(run.rows), run_dir, ended, run.acting)
