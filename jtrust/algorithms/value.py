"""Fitting the value network to its targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jtrust.algorithms.base import Algorithm, Batch
from jtrust.algorithms.gradient_descent import descend, init_optimizer


def make_value_optimizer(algorithm: Algorithm) -> optax.GradientTransformation:
    """Adam on gradients of a norm of at most 1; targets have a standard deviation near 1."""
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(algorithm.value_learning_rate)
    )


def init_value_optimizer(algorithm: Algorithm, params: Any) -> Any:
    """The value optimiser's state before the first fit."""
    return init_optimizer(make_value_optimizer(algorithm), params)


def fit_values(
    algorithm: Algorithm, params: Any, optimizer_state: Any,
    value_fn: Callable[[Any, jax.Array], jax.Array], batch: Batch, axis_name: str | None = None,
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """Least squares on the value targets, in minibatches.

    Args:
      algorithm: gives learning rate, epochs and minibatches.
      params: of the value network.
      optimizer_state: of `init_value_optimizer(algorithm, params)`, or of the fit before.
      value_fn: (params, normalised observations [B, V]) -> values on the targets' scale [B].
      batch: the rollout.
      axis_name: mesh axis of the shards.

    Returns:
      (params, optimizer_state, {"value/loss", "value/skipped"}).
    """
    def loss_fn(params, observation, target, weight):
        return 0.5 * jnp.mean(weight * (value_fn(params, observation) - target) ** 2), ()

    params, optimizer_state, losses, skipped, _ = descend(
        loss_fn, make_value_optimizer(algorithm), params, optimizer_state,
        (batch.value_observation, batch.value_target, batch.weights()), batch.environment_keys,
        algorithm.value_epochs, algorithm.value_minibatches, axis_name,
    )
    return params, optimizer_state, {"value/loss": jnp.mean(losses[-1]), "value/skipped": skipped}
