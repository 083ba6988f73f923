"""What changed since the step before, as a second input of networks with memory."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jtrust.networks.protocol import Params
from jtrust.networks.running_statistics import RunningStatistics, fold_affine

# What is added is cut off here: beyond, an observation has jumped and not moved.
LIMIT = 5.0

# The reading before, [..., O], and 1 where there is one, [..., 1].
Before = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class Changes:
    """clip(gain V (x_t - x_{t-1})), which a network adds to what its first layer makes of x_t.

    A cell can work out a velocity from positions alone, but not soon: of two normalised positions
    a hundredth of a second apart the difference is some hundredth of either, and a network that is
    to live on it has to learn weights a hundred times as large.

    What is remembered is x_{t-1} as the first statistics normalised it, whatever they are by now:
    `scale` and `shift` take today's to it. They are folded with the statistics and not trained, so
    what is remembered neither depends on parameters nor changes when statistics do.

    Attributes:
      inputs: O, numbers in an observation.
      outputs: H, of the first layer.
      gain: what a change is multiplied by.
      kernel_init: of V.
    """

    inputs: int
    outputs: int
    gain: float
    kernel_init: nn.initializers.Initializer

    def init(self, key: jax.Array) -> Params:
        return {
            "kernel": self.kernel_init(key, (self.inputs, self.outputs), jnp.float32),
            "scale": jnp.ones(self.inputs), "shift": jnp.zeros(self.inputs),
        }

    def initial_carry(self, batch_shape: tuple[int, ...]) -> Before:
        return jnp.zeros((*batch_shape, self.inputs)), jnp.zeros((*batch_shape, 1))

    def step(self, params: Params, before: Before, x: jax.Array) -> tuple[jax.Array, Before]:
        """(what to add [..., H], what to remember) for normalised observations [..., O]."""
        reading = self._reading(params, x)
        return self._added(params, reading, before), (reading, jnp.ones_like(before[1]))

    def unroll(
        self, params: Params, before: Before, x: jax.Array, starts: jax.Array
    ) -> tuple[jax.Array, Before]:
        """The same for steps [T, N, O] and beginnings [T, N], all at once."""
        readings = self._reading(params, x)
        seen = jnp.ones((*x.shape[:-1], 1))
        after = readings[-1], seen[-1]
        befores = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), before, (readings, seen)
        )
        befores = befores[0], jnp.where(starts[..., None], 0.0, befores[1])
        return self._added(params, readings, befores), after

    def fold(self, params: Params, old: RunningStatistics, new: RunningStatistics) -> Params:
        kernel = (new.std() / old.std())[:, None] * params["kernel"]
        return {"kernel": kernel, **fold_affine(params, old, new)}

    def _reading(self, params: Params, x: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(x * params["scale"] + params["shift"])

    def _added(self, params: Params, reading: jax.Array, before: Before) -> jax.Array:
        last, seen = before
        scale = jax.lax.stop_gradient(params["scale"])
        change = self.gain * seen * (reading - last) / scale
        return jnp.clip(change @ params["kernel"], -LIMIT, LIMIT)


def default_gain(dt: float | None) -> float:
    """What makes of a change in `dt` seconds one in a fifth of a second; 1 where dt is unknown."""
    return 1.0 if not dt else max(1.0, round(0.2 / dt, 3))
