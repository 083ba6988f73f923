"""Gradient steps on minibatches, which do not depend on how a batch is sharded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from jtrust.algorithms.sequence_minibatches import sequence_epochs
from jtrust.networks.sequence import has_sequences
from jtrust.trust_region import mean_over

# Parameters are one flat vector to the optimiser: a handful of operations per step, where a tree
# takes a handful per leaf, each with its own kernel to compile and to start. (optax.flatten makes a
# vector of gradients alone; optax.apply_if_finite looks at updates, and one that is finite and huge
# makes parameters that are not.)


def init_optimizer(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """The optimiser's state before the first step of `minibatch_sgd`; `params` is a pytree."""
    return optimizer.init(ravel_pytree(params)[0])


def minibatch_sgd(
    loss_fn: Callable[..., tuple[jax.Array, jax.Array | float]],
    optimizer: optax.GradientTransformation, params: Any, optimizer_state: Any, data: tuple,
    environment_keys: jax.Array, epochs: int, minibatches: int | None,
    axis_name: str | None = None,
) -> tuple[Any, Any, jax.Array, jax.Array, jax.Array]:
    """Takes one gradient step per minibatch, or none where anything in it is not finite.

    Args:
      loss_fn: (params, *minibatch) -> (mean loss [], another number worth knowing, []).
      optimizer: takes flat vectors.
      params: pytree.
      optimizer_state: of `init_optimizer`.
      data: pytrees, [T, N, ...] each leaf; or sequences, which are taken environment by
        environment.
      environment_keys: one random key per environment, [N].
      epochs: passes over the data.
      minibatches: steps per pass; None for those of `minibatches_for`;
        in order the largest number below that which divides the environments.
      axis_name: mesh axis of the shards.

    Returns:
      (params, optimizer_state, losses [epochs, minibatches], steps left out [], the other
      numbers [epochs, minibatches]).
    """
    start, unravel = ravel_pytree(params)
    in_order = has_sequences(data)
    if minibatches is None:
        shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        steps, environments = jax.tree.leaves(data)[0].shape[:2]
        wanted = minibatches_for(steps * environments, shards)
        minibatches = (
            largest_divisor(environments * shards, wanted) if in_order else wanted
        )

    def step(carry, minibatch):
        flat, optimizer_state = carry
        (loss, other), gradient = jax.value_and_grad(
            lambda flat: loss_fn(unravel(flat), *minibatch), has_aux=True
        )(flat)
        loss, gradient = mean_over((loss, gradient), axis_name)
        updates, new_state = optimizer.update(gradient, optimizer_state, flat)
        new = optax.apply_updates(flat, updates)
        # Of a gradient that is not finite the new parameters are not either, and a huge but finite
        # one can overflow inside the optimiser.
        good = jnp.isfinite(loss) & jnp.all(jnp.isfinite(new))
        carry = jax.tree.map(
            lambda n, o: jnp.where(good, n, o), (new, new_state), (flat, optimizer_state)
        )
        # As one vector: each array that a loop puts out costs an accelerator a launch a turn.
        return carry, jnp.stack([loss, (~good).astype(jnp.float32), other])

    (flat, optimizer_state), outputs = (sequence_epochs if in_order else minibatch_epochs)(
        step, (start, optimizer_state), data, environment_keys, epochs, minibatches
    )
    losses, skipped, others = jnp.moveaxis(outputs, -1, 0)
    return unravel(flat), optimizer_state, losses, jnp.sum(skipped), others


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
    (docs/evidence/trials.md). From 65,536 steps on minibatches grow instead: gradient steps come
    one after another, and an accelerator has little to do in each.

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
