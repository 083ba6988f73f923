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
      data: pytree, [T, N, ...] each leaf; T at most 32768.
      keys: one per environment, [N].
      epochs: passes.
      minibatches: how many per pass; must divide T N so that each takes whole environments.

    Returns:
      (carry, outputs stacked [epochs, minibatches, ...]).
    """
    steps, environments = jax.tree.leaves(data)[0].shape[:2]
    strides = jnp.asarray([a for a in range(1, steps + 1) if math.gcd(a, steps) == 1], jnp.int32)

    def orders(key):
        # One call of the generator for all passes: each call is a loop of its own to compile. A
        # remainder of 32 random bits favours the first strides by less than one in 10^5.
        bits = jax.random.bits(key, (2, epochs, 1), jnp.uint32)
        stride, offset = strides[bits[0] % strides.shape[0]], (bits[1] % steps).astype(jnp.int32)
        return (stride * jnp.arange(steps) + offset) % steps

    def epoch(carry, order):
        shuffled = jax.tree.map(lambda x: x[order, np.arange(environments)], data)
        return jax.lax.scan(step, carry, jax.tree.map(lambda x: _split(x, minibatches), shuffled))

    return jax.lax.scan(epoch, carry, jax.vmap(orders, out_axes=2)(keys))  # [epochs, T, N]


def minibatches_for(steps: int, shards: int = 1) -> int:
    """How many minibatches a pass takes where nothing is said: about one per 512 steps, 8 to 128.

    With one number for rollouts of every size, the values of many environments would take fewer
    gradient steps per environment step than those of few, and learn more slowly by as much
    (docs/learning.md). From 65,536 steps on minibatches grow instead: gradient steps come one
    after another, and an accelerator has little to do in each.

    Args:
      steps: of the rollout on each shard, T N.
      shards: over how many it is spread.

    Returns:
      The largest divisor of the whole rollout's steps that is not above the number wanted: the
      same on any number of shards. (`make_trainer` refuses shards that it does not divide.)
    """
    return largest_divisor(steps * shards, min(max(steps * shards // 512, 8), 128))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return max(d for d in range(1, min(limit, number) + 1) if number % d == 0)


def _split(x: jax.Array, minibatches: int) -> jax.Array:
    """[T, N, ...] -> [M, T N / M, ...]: slices of time first, then every k-th environment."""
    steps, environments = x.shape[:2]
    slices = math.gcd(minibatches, steps)
    groups = minibatches // slices
    x = x.reshape(slices, steps // slices, environments // groups, groups, *x.shape[2:])
    x = jnp.moveaxis(x, 3, 1)
    return x.reshape(minibatches, steps * environments // minibatches, *x.shape[4:])
