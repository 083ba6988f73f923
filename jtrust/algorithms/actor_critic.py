"""Algorithms that are told, beside their own, how advantages are estimated and values fitted."""

from __future__ import annotations

import dataclasses
from typing import Any

from jtrust.advantages import GAE
from jtrust.algorithms.base import Algorithm
from jtrust.algorithms.defaults import by_size
from jtrust.algorithms.value_fit import ValueFit
from jtrust.hyperparameters import static

# What is called otherwise here than there: `value_` and the name of a field of `ValueFit`.
_RENAMED = {"value_lambda": "td_lambda"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCritic(Algorithm):
    """An algorithm with the settings of `GAE` and `ValueFit` by name.

    They are not its own: no update of a policy looks at them. `make_trainer` makes of them the
    objects that a trainer is made of, and there they are changed from then on.

    Attributes:
      discount: γ.
      gae_lambda: λ of generalized advantage estimation.
      advantage_floor: where the advantages' standard deviation is a smaller share than this of the
        returns' root mean square, updates are shortened in proportion; 0 takes full steps always.
      value_lambda: λ of the value targets; None for that of the advantages.
      value_rounds: how often values are fitted to a rollout, to targets computed anew from those
        of the round before; all rounds but the last come before the policy's update.
      value_solver: "adam", minibatches of gradient steps; or "gauss-newton", one step of second
        order a round, which an accelerator does in a small part of the time.
      value_learning_rate: Adam's step size for the value network.
      value_epochs: Adam's passes over a batch in each round.
      value_minibatches: Adam's steps per pass; by default one for every 512 steps of the rollout,
        from 8 to 128.
      value_cg_iterations: conjugate-gradient iterations for a step of Gauss-Newton.
      value_damping: multiple of the identity added to the Gauss-Newton matrix.
    """

    discount: float = 0.995
    gae_lambda: float = 0.95
    advantage_floor: float = 0.003
    value_lambda: float | None = None
    value_rounds: int = static(by_size(1))
    value_solver: str = static(by_size("adam"))
    value_learning_rate: float = 1e-3
    value_epochs: int = static(2)
    value_minibatches: int | None = static(None)
    value_cg_iterations: int = static(6)
    value_damping: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        self.gae(), self.value_fit()  # each refuses what will not do

    def gae(self) -> GAE:
        """Of what it is told by name."""
        return GAE(**{f.name: getattr(self, f.name) for f in dataclasses.fields(GAE)})

    def value_fit(self) -> ValueFit:
        """Of what it is told by name."""
        return ValueFit(**{
            of_fit: getattr(self, name) for name, of_fit in by_name_of_value_fit().items()
        })

    def for_large(self, num_envs: int, unroll_length: int) -> dict[str, Any]:
        of_fit = ValueFit().for_large(num_envs, unroll_length)
        return super().for_large(num_envs, unroll_length) | {
            name: of_fit[field] for name, field in by_name_of_value_fit().items()
            if field in of_fit
        }


def by_name_of_value_fit() -> dict[str, str]:
    """The fields of `ValueFit` by the names that algorithms give them."""
    renamed = {field: name for name, field in _RENAMED.items()}
    return {
        renamed.get(f.name, f"value_{f.name}"): f.name for f in dataclasses.fields(ValueFit)
    }
