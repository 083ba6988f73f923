"""Gathering experience: the policy acts in every environment for a fixed number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.environments import Environment, batch
from jtrust.environments.batch import Episodes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trajectory:
    """T steps of N environments.

    Attributes:
      observation: [T, N, O].
      action: [T, N, A], or [T, N] if discrete.
      reward: [T, N].
      termination: bool [T, N].
      truncation: bool [T, N].
      truncation_value: value of the true last observation where truncated, 0 elsewhere, [T, N].
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    termination: jax.Array
    truncation: jax.Array
    truncation_value: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EpisodeTotals:
    """Sums over the episodes that ended in a rollout, [] each.

    Attributes:
      count: how many ended, other than by a non-finite value.
      reward: sum of their returns.
      length: sum of their lengths.
      nonfinite: how many were cut by a non-finite value.
    """

    count: jax.Array
    reward: jax.Array
    length: jax.Array
    nonfinite: jax.Array


def rollout(
    environment: Environment,
    policy_fn: Callable[[jax.Array], Any],
    value_fn: Callable[[jax.Array], jax.Array],
    episodes: Episodes,
    starts: Any,
    keys: jax.Array,
    unroll_length: int,
) -> tuple[Episodes, Trajectory, EpisodeTotals]:
    """Lets the policy act for `unroll_length` steps in each environment.

    Random numbers come from each environment's own key, so what happens in one does not depend
    on which others run beside it.

    Args:
      environment: what to step.
      policy_fn: raw observations [N, O] -> distribution over actions.
      value_fn: raw observations [N, O] -> values in units of reward [N].
      episodes: where each environment stands, [N, ...].
      starts: fresh start states for those that end, [N, ...].
      keys: one per environment, [N]; consumed.
      unroll_length: T.

    Returns:
      (episodes after the last step, `Trajectory`, `EpisodeTotals`).
    """

    def step(episodes: Episodes, t: jax.Array):
        observation = episodes.observation
        with jax.named_scope("policy_inference"):
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
            action = jax.vmap(lambda d, k: d.sample(k))(policy_fn(observation), step_keys)
        with jax.named_scope("physics"):
            moved, outcome = batch.step(environment, episodes, action)
        truncation_value = jax.lax.cond(
            jnp.any(outcome.truncation),
            lambda: jnp.where(outcome.truncation, value_fn(outcome.last_observation), 0.0),
            lambda: jnp.zeros_like(outcome.reward),
        )
        end = outcome.termination | outcome.truncation
        with jax.named_scope("restart"):
            episodes = batch.restart(moved, starts, end, t)
        totals = EpisodeTotals(
            count=jnp.sum(outcome.episode_end),
            reward=jnp.sum(outcome.episode_return),
            length=jnp.sum(outcome.episode_length),
            nonfinite=jnp.sum(outcome.nonfinite),
        )
        trajectory = Trajectory(
            observation, action, outcome.reward, outcome.termination, outcome.truncation,
            truncation_value,
        )
        return episodes, (trajectory, totals)

    episodes, (trajectory, totals) = jax.lax.scan(step, episodes, jnp.arange(unroll_length))
    return episodes, trajectory, jax.tree.map(lambda x: jnp.sum(x, axis=0), totals)
