"""Passes over a batch in minibatches that do not depend on how it is sharded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def minibatch_epochs(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, data: Any, keys: jax.Array,
    epochs: int, minibatches: int,
) -> tuple[Any, Any]:
    """Scans `step` over `epochs` passes of `minibatches` each.

    Every environment contributes the same number of steps to each minibatch (to each one of its
    group, where the number of minibatches does not divide T), in an order of its own:
    t ↦ (a t + b) mod T with a random offset b and a random stride a coprime to T. That costs no
    sort, decorrelates neighbours in time, and, since it depends on the environment's own key
    alone, gives the same minibatches on any number of shards.

    Args:
      step: (carry, minibatch [B, ...]) -> (carry, outputs).
      carry: pytree.
      data: pytree, [T, N, ...] each leaf.
      keys: one per environment, [N].
      epochs: passes.
      minibatches: how many per pass; must divide T N so that each takes whole environments.

    Returns:
      (carry, outputs stacked [epochs, minibatches, ...]).
    """
    steps, environments = jax.tree.leaves(data)[0].shape[:2]
    strides = jnp.asarray([a for a in range(1, steps + 1) if math.gcd(a, steps) == 1], jnp.int32)

    def order(key):
        stride_key, offset_key = jax.random.split(key)
        stride = strides[jax.random.randint(stride_key, (), 0, strides.shape[0])]
        offset = jax.random.randint(offset_key, (), 0, steps)
        return (stride * jnp.arange(steps) + offset) % steps

    def epoch(carry, index):
        orders = jax.vmap(lambda key: order(jax.random.fold_in(key, index)), out_axes=1)(keys)
        shuffled = jax.tree.map(lambda x: x[orders, np.arange(environments)], data)
        return jax.lax.scan(step, carry, jax.tree.map(lambda x: _split(x, minibatches), shuffled))

    return jax.lax.scan(epoch, carry, jnp.arange(epochs))


def _split(x: jax.Array, minibatches: int) -> jax.Array:
    """[T, N, ...] -> [M, T N / M, ...]: slices of time first, then every k-th environment."""
    steps, environments = x.shape[:2]
    slices = math.gcd(minibatches, steps)
    groups = minibatches // slices
    x = x.reshape(slices, steps // slices, environments // groups, groups, *x.shape[2:])
    x = jnp.moveaxis(x, 3, 1)
    return x.reshape(minibatches, steps * environments // minibatches, *x.shape[4:])
