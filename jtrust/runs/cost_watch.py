"""Tells of a limit on a cost that is out of reach."""

from __future__ import annotations

from collections.abc import Callable

from jtrust.algorithms import Algorithm
from jtrust.runs.sinks import IterationInfo, Sink


class CostWatch(Sink):
    """Says once of each cost that its limit seems to be below what the policy can reach.

    Args:
      algorithm: whose costs.
      note: says something to a person.
    """

    def __init__(self, algorithm: Algorithm, note: Callable[[str], None]):
        self._left, self._note = set(algorithm.cost_names), note

    def on_iteration(self, info: IterationInfo) -> None:
        row = info.row
        for name in sorted(self._left):
            if row[f"cost/{name}/infeasible"]:
                self._left.discard(name)
                self._note(
                    f"warning: cost {name} has been far above its limit for long and comes down no "
                    f"further: about {row[f'cost/{name}/estimate']:.4g} against "
                    f"{row[f'cost/{name}/limit']:g} at iteration {info.iteration}; a larger limit "
                    "may be one that can be kept"
                )


def cost_watch(algorithm: Algorithm, note: Callable[[str], None]) -> list[Sink]:
    """What a run of an algorithm needs of it: nothing where no cost has a limit."""
    return [CostWatch(algorithm, note)] if algorithm.cost_names else []
