"""Advantages and value targets of a rollout."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jtrust.advantages import GAE, gae
from jtrust.training.agent import Agent
from jtrust.training.rollout import Trajectory
from jtrust.training.state import TrainState


class Estimates(NamedTuple):
    """In units of reward, [T, N] each.

    Attributes:
      values: of the observations.
      advantages: of the actions.
      targets: what values are to be.
    """

    values: jax.Array
    advantages: jax.Array
    targets: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Estimation:
    """Judges each step by the values and by what came of it.

    Attributes:
      agent: whose values judge.
      gae: how advantages are estimated.
      td_lambda: λ of the value targets; None for that of the advantages.
    """

    agent: Agent
    gae: GAE
    td_lambda: jax.Array | float | None = None

    @property
    def target_lambda(self) -> jax.Array | float:
        """λ of the value targets."""
        return self.gae.gae_lambda if self.td_lambda is None else self.td_lambda

    def __call__(self, state: TrainState, trajectory: Trajectory) -> Estimates:
        """A step at which the simulator broke says nothing of the policy: the sums of the steps
        before it end with the value of the observation from which it was taken, its own advantage
        is 0, and it has no weight in the batch."""
        agent = self.agent
        with jax.named_scope("advantages"):
            values, memory = agent.values_along(state, trajectory)
            final = agent.environment.used(state.episodes.observation)
            final_values = agent.values_after(state, memory, final)
            next_values = true_next_values(trajectory, values, final_values)

            def sums(decay: jax.Array | float) -> jax.Array:
                advantages, _ = gae(
                    trajectory.reward, values, next_values, trajectory.termination,
                    ends_of_sums(trajectory), self.gae.discount, decay,
                )
                return jnp.where(trajectory.whole, advantages, 0.0)

            advantages = towards_targets = sums(self.gae.gae_lambda)
            if self.td_lambda is not None:
                towards_targets = sums(self.td_lambda)
        return Estimates(values, advantages, towards_targets + values)


def ends_of_sums(trajectory: Trajectory) -> jax.Array:
    """Where sums of rewards stop: episodes that end, and steps before the simulator broke."""
    whole = jnp.broadcast_to(trajectory.whole, trajectory.termination.shape)
    breaks_next = jnp.concatenate([~whole[1:], jnp.zeros_like(whole[:1])])
    return trajectory.termination | trajectory.truncation | breaks_next


def true_next_values(
    trajectory: Trajectory, values: jax.Array, final_values: jax.Array
) -> jax.Array:
    """Values of the true next observations, [T, N].

    Args:
      trajectory: T steps of N environments.
      values: of its observations, [T, N].
      final_values: of the observations after the last step, [N].
    """
    following = jnp.concatenate([values[1:], final_values[None]])
    return jnp.where(trajectory.truncation, trajectory.truncation_value, following)
