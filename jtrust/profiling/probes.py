"""What a rollout would take without the policy: its environments alone, for comparison."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jtrust.training import Trainer, TrainState
from jtrust.training.random_keys import ACTIONS
from jtrust.training.rollout import in_blocks, random_rollout


def replay(
    trainer: Trainer, state: TrainState, pool: Any, action: jax.Array
) -> tuple[Any, jax.Array]:
    """The environments of a collection under given actions [T, N, ...] and nothing else.

    Args:
      trainer, state: whose environments; within the mesh.
      pool: start states, of `Collection.reset_pool`.
      action: on the policy's scale.

    Returns:
      (episodes after the last step, rewards [T, N]).
    """
    collection = trainer.collection
    restarts = collection.restarts(pool)

    def run(episodes, pool, action):
        # Blocks cut along the first axis, so time comes second on the way in.
        return *random_rollout(
            trainer.environment, episodes, pool, jnp.moveaxis(action, 1, 0), restarts
        ), None

    return in_blocks(
        run, collection.block_size(pool), collection.begun(state, pool), pool,
        jnp.moveaxis(action, 1, 0),
    )[:2]


def act_at_random(
    trainer: Trainer, state: TrainState, keys: jax.Array
) -> tuple[Any, jax.Array]:
    """The environments of a collection under random actions and nothing else."""
    action = jax.vmap(
        lambda key: trainer.environment.action.sample(key, (trainer.unroll_length,)), out_axes=1
    )(keys[:, ACTIONS])
    return replay(trainer, state, trainer.collection.reset_pool(state, keys), action)
