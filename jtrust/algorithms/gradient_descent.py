"""Gradient steps on minibatches, for policies and values alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jtrust.algorithms.minibatches import minibatch_epochs, minibatches_for
from jtrust.trust_region import mean_over

# Parameters are one flat vector to the optimiser: a handful of operations per step, where a tree
# takes a handful per leaf, each with its own kernel to compile and to start.


def init_optimizer(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """The optimiser's state before the first step of `descend`, for a pytree of parameters."""
    return optimizer.init(ravel_pytree(params)[0])


def descend(
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
      data: pytrees, [T, N, ...] each leaf.
      environment_keys: one random key per environment, [N].
      epochs: passes over the data.
      minibatches: steps per pass; None for those of `minibatches_for`.
      axis_name: mesh axis of the shards.

    Returns:
      (params, optimizer_state, losses [epochs, minibatches], steps left out [], the other
      numbers [epochs, minibatches]).
    """
    start, unravel = ravel_pytree(params)
    if minibatches is None:
        shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        minibatches = minibatches_for(math.prod(jax.tree.leaves(data)[0].shape[:2]), shards)

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

    (flat, optimizer_state), outputs = minibatch_epochs(
        step, (start, optimizer_state), data, environment_keys, epochs, minibatches
    )
    losses, skipped, others = jnp.moveaxis(outputs, -1, 0)
    return unravel(flat), optimizer_state, losses, jnp.sum(skipped), others
