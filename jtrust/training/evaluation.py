"""Evaluation: whole episodes of a fixed policy, each environment counted once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.environments import Environment, batch

# (params, memory, observations, keys) -> (actions, memory)
PolicyFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Any]]
# (episodes under way, which of them go on, results so far, steps done)
Carry = tuple[batch.Episodes, jax.Array, dict[str, jax.Array], jax.Array]


@functools.partial(jax.jit, static_argnames=("environment", "policy_fn", "episodes"))
def evaluate_policy(
    environment: Environment,
    policy_fn: PolicyFn,
    params: Any,
    key: jax.Array,
    episodes: int,
    memory: Any = (),
) -> dict[str, jax.Array]:
    """Runs one episode in each of `episodes` environments, to its end or the time limit.

    Args:
      environment: what to act in.
      policy_fn: (params, memory, observations, keys [N]) -> (actions [N, A] or [N], memory);
        observations are [N, O], or a dictionary of such.
      params: what `policy_fn` needs.
      key: random key; consumed.
      episodes: N.
      memory: what the policy remembers where an episode begins, [N, ...] each leaf.

    Returns:
      {"return": [N], "length": [N], "nonfinite": bool [N], "overflow": bool [N]}, and "cost/NAME",
      the sum of each of the environment's costs, [N]; an episode that gave NaN or infinity ends
      there, with what came before it; in one that overflowed, the physics lost contacts or
      constraints for want of room.
    """
    carry, keys = begin_episodes(environment, key, episodes, memory)

    def going_on(carry):
        _, running, _, t = carry
        return jnp.any(running) & (t < environment.episode_length)

    def step(carry):
        return advance_episodes(environment, policy_fn, params, keys, carry)[0]

    return jax.lax.while_loop(going_on, step, carry)[2]


def begin_episodes(
    environment: Environment, key: jax.Array, episodes: int, memory: Any = ()
) -> tuple[Carry, jax.Array]:
    """Where `evaluate_policy` begins: (what a step carries, keys [N] of the actions)."""
    start_key, action_key = jax.random.split(key)
    variation_key = jax.random.fold_in(key, 2)  # none of the two that the split gave
    variation = batch.variations(environment, jax.random.split(variation_key, episodes))
    starts = batch.reset_states(environment, jax.random.split(start_key, episodes), variation)
    starts = batch.whole_resets(environment, starts)
    result = {
        "return": jnp.zeros(episodes, jnp.float32),
        "length": jnp.zeros(episodes, jnp.int32),
        "nonfinite": jnp.zeros(episodes, bool),
        "overflow": jnp.zeros(episodes, bool),
        **{f"cost/{name}": jnp.zeros(episodes, jnp.float32) for name in environment.costs},
    }
    running = jnp.ones(episodes, bool)
    begun = dataclasses.replace(
        batch.begin(starts, variation, costs=environment.costs), memory=memory
    )
    carry = (begun, running, result, jnp.int32(0))
    return carry, jax.random.split(action_key, episodes)


def advance_episodes(
    environment: Environment, policy_fn: PolicyFn, params: Any, keys: jax.Array, carry: Carry,
) -> tuple[Carry, jax.Array, jax.Array]:
    """One step of each of N episodes: (what is carried on, actions [N, A] or [N], rewards [N]).

    Actions are on the policy's scale; rewards of episodes that have ended are 0.
    """
    current, running, result, t = carry
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
    action, memory = policy_fn(params, current.memory, current.observation, step_keys)
    moved, outcome = batch.step(environment, current, action)
    moved = dataclasses.replace(moved, memory=memory)
    reward = jnp.where(running, outcome.reward, 0.0)
    result = {
        "return": result["return"] + reward,
        "length": result["length"] + running,
        "nonfinite": result["nonfinite"] | (running & outcome.nonfinite),
        "overflow": result["overflow"] | (running & outcome.overflow),
        **{
            f"cost/{name}": result[f"cost/{name}"] + jnp.where(running, cost, 0.0)
            for name, cost in outcome.costs.items()
        },
    }
    running = running & ~(outcome.termination | outcome.truncation)
    return (moved, running, result, t + 1), action, reward
