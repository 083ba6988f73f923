"""Evaluation: whole episodes of a fixed policy, each environment counted once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.environments import Environment, batch


@functools.partial(jax.jit, static_argnames=("environment", "policy_fn", "episodes"))
def evaluate_policy(
    environment: Environment,
    policy_fn: Callable[[Any, jax.Array, jax.Array], jax.Array],
    params: Any,
    key: jax.Array,
    episodes: int,
) -> dict[str, jax.Array]:
    """Runs one episode in each of `episodes` environments, to its end or the time limit.

    Args:
      environment: what to act in.
      policy_fn: (params, observations, keys [N]) -> actions, [N, A] or [N]; observations are
        [N, O], or a dictionary of such.
      params: what `policy_fn` needs.
      key: random key; consumed.
      episodes: N.

    Returns:
      {"return": [N], "length": [N], "nonfinite": bool [N], "overflow": bool [N]}; an episode that
      gave NaN or infinity ends there, with the rewards before it; in one that overflowed, the
      physics lost contacts or constraints for want of room.
    """
    start_key, action_key = jax.random.split(key)
    variation_key = jax.random.fold_in(key, 2)  # none of the two that the split gave
    variation = batch.variations(environment, jax.random.split(variation_key, episodes))
    starts = batch.reset_states(environment, jax.random.split(start_key, episodes), variation)
    starts = batch.whole_resets(environment, starts)
    keys = jax.random.split(action_key, episodes)

    def going_on(carry):
        _, running, _, t = carry
        return jnp.any(running) & (t < environment.episode_length)

    def step(carry):
        current, running, result, t = carry
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
        moved, outcome = batch.step(
            environment, current, policy_fn(params, current.observation, step_keys)
        )
        result = {
            "return": result["return"] + jnp.where(running, outcome.reward, 0.0),
            "length": result["length"] + running,
            "nonfinite": result["nonfinite"] | (running & outcome.nonfinite),
            "overflow": result["overflow"] | (running & outcome.overflow),
        }
        running = running & ~(outcome.termination | outcome.truncation)
        return moved, running, result, t + 1

    result = {
        "return": jnp.zeros(episodes, jnp.float32),
        "length": jnp.zeros(episodes, jnp.int32),
        "nonfinite": jnp.zeros(episodes, bool),
        "overflow": jnp.zeros(episodes, bool),
    }
    start = (batch.begin(starts, variation), jnp.ones(episodes, bool), result, jnp.int32(0))
    return jax.lax.while_loop(going_on, step, start)[2]
