"""Fitting the value network to its targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jtrust.algorithms.base import Algorithm, Batch, gradient_step
from jtrust.algorithms.minibatches import minibatch_epochs
from jtrust.trust_region import mean_over


def make_value_optimizer(algorithm: Algorithm) -> optax.GradientTransformation:
    """Adam on gradients of a norm of at most 1; targets have a standard deviation near 1."""
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(algorithm.value_learning_rate)
    )


def fit_values(
    algorithm: Algorithm, params: Any, optimizer_state: Any,
    value_fn: Callable[[Any, jax.Array], jax.Array], batch: Batch, axis_name: str | None = None,
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """Least squares on the value targets, in minibatches.

    Args:
      algorithm: gives learning rate, epochs and minibatches.
      params: of the value network.
      optimizer_state: of `make_value_optimizer(algorithm)`.
      value_fn: (params, normalised observations [B, V]) -> values on the targets' scale [B].
      batch: the rollout.
      axis_name: mesh axis of the shards.

    Returns:
      (params, optimizer_state, {"value/loss", "value/skipped"}).
    """
    optimizer = make_value_optimizer(algorithm)

    def loss_fn(params, observation, target):
        return 0.5 * jnp.mean((value_fn(params, observation) - target) ** 2)

    def step(carry, minibatch):
        params, optimizer_state = carry
        loss, gradient = mean_over(
            jax.value_and_grad(loss_fn)(params, *minibatch), axis_name
        )
        params, optimizer_state, skipped = gradient_step(
            optimizer, params, optimizer_state, gradient, loss
        )
        return (params, optimizer_state), (loss, skipped)

    (params, optimizer_state), (losses, skipped) = minibatch_epochs(
        step, (params, optimizer_state), (batch.value_observation, batch.value_target),
        batch.environment_keys, algorithm.value_epochs, algorithm.value_minibatches,
    )
    return params, optimizer_state, {
        "value/loss": jnp.mean(losses[-1]), "value/skipped": jnp.sum(skipped)
    }
