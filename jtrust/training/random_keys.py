"""Random keys of an iteration: by environment and purpose, on any number of devices the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jtrust.training.mesh import environment_index
from jtrust.training.state import TrainState

# What a random key is for.
ACTIONS, STARTS, MINIBATCHES = PURPOSES = range(3)


def environment_keys(state: TrainState, count: int) -> jax.Array:
    """For each of this shard's `count` environments, for this iteration, [count, purposes]."""
    key = jax.random.fold_in(state.key, state.iteration)
    index = environment_index(count)
    # All at once: each call of the generator is a loop of its own to compile.
    number = index[:, None] * len(PURPOSES) + jnp.asarray(PURPOSES)
    return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (None, 0))(key, number)
