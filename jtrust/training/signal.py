"""Whether a run's rewards have said anything yet.

Advantages are standardised, so those of a reward that is the same at every step are what is left
of the values' errors, blown up to the size of any other: a full step along nothing. Two things
tell policies apart: a reward that differs between steps, and episodes that end in a failure or a
success while each step pays something. Where neither was ever seen, no update is made.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

# Rewards nearer to each other than this, relative to their size, differ by float32's rounding.
_RELATIVE = 1e-6
_MOST = float(jnp.finfo(jnp.float32).max)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RewardsSeen:
    """What the rewards of a run were so far, over all environments.

    Attributes:
      least: the least reward of a step, [].
      most: the greatest, [].
      ended: 1 if an episode has ended other than by a time limit, [].
    """

    least: jax.Array
    most: jax.Array
    ended: jax.Array

    @classmethod
    def none(cls) -> RewardsSeen:
        """Before the first step."""
        return cls(jnp.float32(_MOST), jnp.float32(-_MOST), jnp.float32(0.0))

    def update(
        self, reward: jax.Array, termination: jax.Array, whole: jax.Array, axis_name: str
    ) -> RewardsSeen:
        """Takes in those steps of a rollout that are whole, [T, N] each; shards on `axis_name`."""
        # One collective for the three.
        largest = jax.lax.pmax(jnp.stack([
            -jnp.min(jnp.where(whole, reward, _MOST)), jnp.max(jnp.where(whole, reward, -_MOST)),
            jnp.max((whole & termination).astype(jnp.float32)),
        ]), axis_name)
        return RewardsSeen(
            jnp.minimum(self.least, -largest[0]), jnp.maximum(self.most, largest[1]),
            jnp.maximum(self.ended, largest[2]),
        )

    def tell_apart(self) -> jax.Array:
        """Whether they can tell one policy from another, bool []."""
        size = jnp.maximum(jnp.abs(self.least), jnp.abs(self.most))
        differ = self.most - self.least > _RELATIVE * size
        return (self.most >= self.least) & (differ | ((self.ended > 0) & (size > 0)))
