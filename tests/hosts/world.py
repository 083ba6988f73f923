"""A small environment that processes of their own can import."""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    position: jax.Array
    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class Line:
    """A point on a line that is paid for being near 0, and fails beyond ±2."""

    action_size = 1

    def reset(self, key):
        return self._state(jax.random.uniform(key, (), minval=-0.5, maxval=0.5))

    def step(self, state, action):
        return self._state(state.position + 0.3 * action[0])

    def _state(self, position):
        return State(
            position, jnp.stack([position, position**2]), jnp.exp(-(position**2)),
            (jnp.abs(position) > 2.0).astype(jnp.float32),
        )
