"""Generalized advantage estimation with terminations and truncations kept apart."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.hyperparameters import hyperparameters


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class GAE:
    """How advantages are estimated from rewards and values, and what they are worth.

    By generalized advantage estimation (Schulman et al., 2016, arXiv:1506.02438).

    Attributes:
      discount: γ.
      gae_lambda: λ of generalized advantage estimation.
      advantage_floor: where the advantages' standard deviation is a smaller share than this of the
        returns' root mean square, updates are shortened in proportion. Standardised, the
        advantages of a task that is done are noise as large as any, and full steps along it
        unlearn the task; 0 takes full steps always.
    """

    discount: float = 0.995
    gae_lambda: float = 0.95
    advantage_floor: float = 0.003

    def __post_init__(self):
        checks.real_number("discount", self.discount, minimum=0, maximum=1, example=0.995)
        checks.real_number("gae_lambda", self.gae_lambda, minimum=0, maximum=1, example=0.95)
        checks.real_number("advantage_floor", self.advantage_floor, minimum=0, example=0.003)


def gae(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminations: jax.Array,
    ends: jax.Array,
    discount: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """Advantages and value targets (Schulman et al., 2016, arXiv:1506.02438, equation 16).

        δ_t = r_t + γ V(s_{t+1}) [not terminated at t] - V(s_t)
        Â_t = δ_t + γ λ Â_{t+1} [no episode ended at t]

    A window may hold several episodes. A time limit ends an episode (`ends`) but is no
    termination: its δ bootstraps from the value of the true last observation.

    Args:
      rewards: [T, N].
      values: V(s_t), [T, N].
      next_values: V of the true next observation, before any restart, [T, N].
      terminations: bool or 0/1, [T, N]; no bootstrap.
      ends: termination or truncation, bool or 0/1, [T, N]; the sum stops.
      discount: γ in [0, 1].
      gae_lambda: λ in [0, 1].

    Returns:
      (advantages [T, N], value targets Â + V [T, N]).
    """
    chex.assert_equal_shape([rewards, values, next_values, terminations, ends])
    # `where`, not a product: whatever stands in for the value after a termination is not read.
    after = jnp.where(terminations.astype(bool), 0.0, next_values)
    deltas = rewards + discount * after - values
    decays = jnp.where(ends.astype(bool), 0.0, discount * gae_lambda)

    # A linear recurrence is associative: 2 log2 T operations on everything instead of T on a slice
    # each, which on an accelerator would start a few kernels for every step of time.
    def then(later, earlier):
        (decay_after, sum_after), (decay, delta) = later, earlier
        return decay * decay_after, delta + decay * sum_after

    _, advantages = jax.lax.associative_scan(then, (decays, deltas), reverse=True)
    return advantages, advantages + values
