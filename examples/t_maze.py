"""A T-maze: what is seen at the start says which way is right at the far end.

    jtrust train examples.t_maze:make --memory gru --env-option length=10 --steps 500000

After Bakker, 2002 (Reinforcement Learning with Long Short-Term Memory, NIPS 14): a corridor of
`length` squares and a junction. Only the first observation shows the sign; in the corridor and at
the junction all episodes look alike. Going to the side of the sign pays 4, to the other side -0.1;
either ends the episode. Standing still pays -0.1. Who remembers nothing is right half the time.
"""

import dataclasses

import jax
import jax.numpy as jnp

import jtrust

FORWARD, LEFT, RIGHT = range(3)
RIGHT_WAY, WRONG = 4.0, -0.1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where it stands and what the sign said.

    Attributes:
      place: squares from the start, int32 []; `length` is the junction.
      sign: LEFT or RIGHT, int32 [].
      obs, reward, done: as every environment has them.
    """

    place: jax.Array
    sign: jax.Array
    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class TMaze:
    """Observations [4]: sign at the left, sign at the right, corridor, junction."""

    observation_size = 4
    action = jtrust.Discrete(3)

    def __init__(self, length: int):
        self.length = length

    def reset(self, key: jax.Array) -> State:
        sign = jnp.where(jax.random.bernoulli(key), LEFT, RIGHT).astype(jnp.int32)
        return self._state(jnp.int32(0), sign, jnp.float32(0.0), jnp.float32(0.0))

    def step(self, state: State, action: jax.Array) -> State:
        at_junction = state.place == self.length
        chooses = at_junction & (action != FORWARD)
        moves = ~at_junction & (action == FORWARD)
        reward = jnp.where(
            chooses, jnp.where(action == state.sign, RIGHT_WAY, WRONG), jnp.where(moves, 0.0, WRONG)
        )
        return self._state(
            state.place + moves.astype(jnp.int32), state.sign, reward.astype(jnp.float32),
            chooses.astype(jnp.float32),
        )

    def _state(
        self, place: jax.Array, sign: jax.Array, reward: jax.Array, done: jax.Array
    ) -> State:
        first, last = place == 0, place == self.length
        seen = [first & (sign == LEFT), first & (sign == RIGHT), ~first & ~last, last]
        return State(place, sign, jnp.stack(seen).astype(jnp.float32), reward, done)


def make(length: int = 10) -> jtrust.Environment:
    """The maze with a time limit of four times its length, at least 20 steps."""
    if not isinstance(length, int) or isinstance(length, bool) or not 1 <= length <= 10_000:
        raise jtrust.BadArgument("length", length, "must be a whole number from 1 to 10000")
    return jtrust.describe(TMaze(length), "t_maze", episode_length=max(4 * length, 20))
