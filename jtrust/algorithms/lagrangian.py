"""TRPO and PPO with multipliers for costs, which a PID controller moves."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.constrained import Constrained, costs_of
from jtrust.algorithms.ppo import PPO
from jtrust.algorithms.trees import Params
from jtrust.algorithms.trpo import TRPO
from jtrust.hyperparameters import hyperparameters
from jtrust.trust_region import mean_over


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Controller:
    """What a PID controller of multipliers carries from one batch to the next, [K] each.

    Attributes:
      integral: of the relative excesses, at least 0.
      estimate: J_C of the batch before; negative before the first.
    """

    integral: jax.Array
    estimate: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LagrangianState:
    """What an algorithm with multipliers carries.

    Attributes:
      policy: what the algorithm without them carries.
      controller: of the multipliers.
    """

    policy: Any
    controller: Controller


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lagrangian(Constrained):
    """The maximum of J - Σ λ_k (J_Ck - d_k) over policies, and the λ_k ≥ 0 at which limits hold.

    Each λ_k is the output of a PID controller (Stooke, Achiam and Abbeel, 2020, arXiv:2007.03964,
    algorithm 2), with Δ the excess of the cost over its limit, relative to the larger of the two,
    so that one set of gains will do for costs of any size:

        Δ = (J_C - d) / max(J_C, d)
        I ← (I + K_I Δ)_+ ,   D = (J_C - J_C of the batch before)_+ / max(J_C, d)
        λ = (K_P Δ + I + K_D D)_+

    The policy is updated by its own algorithm with (Â - Σ λ_k Â_Ck) / (1 + Σ λ_k) in the place of
    the advantage (equation 10 there), all of them with a standard deviation of one, and a λ of 1
    weighs a cost as much as the reward.

    Attributes:
      kp: K_P, what the excess of this batch adds.
      ki: K_I, what each batch's excess adds for good.
      kd: K_D, what a rise of the cost since the batch before adds.
      max_multiplier: λ_k is never larger.
    """

    kp: float = 1.0
    ki: float = 0.03
    kd: float = 1.0
    max_multiplier: float = 100.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("kp", "ki", "kd"):
            checks.real_number(name, getattr(self, name), minimum=0, example=0.1)
        checks.real_number("max_multiplier", self.max_multiplier, above=0, example=100.0)

    def init(self, params: Params) -> Any:
        count = len(self.cost_names)
        return LagrangianState(
            super().init(params),  # type: ignore[misc]
            Controller(jnp.zeros(count), jnp.full(count, -1.0)),
        )

    def update(self, state, params, distribution_fn, batch, axis_name=None):
        costs = costs_of(batch)
        controller, multipliers = self.control(state.controller, costs.estimate)
        params, inner, metrics = super().update(  # type: ignore[misc]
            state.policy, params, distribution_fn, mixed(batch, multipliers, axis_name), axis_name
        )
        return params, LagrangianState(inner, controller), metrics | self.cost_metrics(multipliers)

    def control(
        self, controller: Controller, estimate: jax.Array
    ) -> tuple[Controller, jax.Array]:
        """One turn of the controller: (what it carries on, λ [K]).

        Args:
          controller: from the batch before.
          estimate: J_C, [K].
        """
        limits = self.limits_of_costs()
        size = jnp.maximum(jnp.maximum(estimate, limits), 1e-12)
        excess = (estimate - limits) / size
        # No further than where λ is bounded: a long stretch of excess must not take as long again.
        integral = jnp.clip(controller.integral + self.ki * excess, 0.0, self.max_multiplier)
        before = jnp.where(controller.estimate < 0, estimate, controller.estimate)
        rise = jnp.maximum(estimate - before, 0.0) / size
        found = self.kp * excess + integral + self.kd * rise
        return Controller(integral, estimate), jnp.clip(found, 0.0, self.max_multiplier)


def mixed(batch: Batch, multipliers: jax.Array, axis_name: str | None) -> Batch:
    """The batch with costs weighed into the advantage, and none beside it.

    Where the simulator broke the advantage is as it was.
    """
    costs, weight = costs_of(batch), batch.weights()
    spread = mean_over(jnp.mean(weight * costs.advantage**2, axis=(1, 2)), axis_name)
    standard = costs.advantage * jax.lax.rsqrt(spread + 1e-12)[:, None, None]
    weighed = batch.advantage - jnp.einsum("k,ktn->tn", multipliers, standard)
    weighed = weighed / (1.0 + jnp.sum(multipliers))
    whole = jnp.broadcast_to(batch.broken, batch.advantage.shape) == 0
    return dataclasses.replace(
        batch, advantage=jnp.where(whole, weighed, batch.advantage), costs=None
    )


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class TRPOLagrangian(Lagrangian, TRPO):
    """TRPO on the reward less its costs, weighed by multipliers: `Lagrangian`."""

    name: ClassVar[str] = "trpo-lagrangian"


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOLagrangian(Lagrangian, PPO):
    """PPO on the reward less its costs, weighed by multipliers: `Lagrangian`."""

    name: ClassVar[str] = "ppo-lagrangian"
