"""Fitting the value network to its targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jtrust.algorithms.base import Algorithm
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.gauss_newton import gauss_newton_step
from jtrust.algorithms.gradient_descent import descend, init_optimizer

# (params, normalised observations [B, V]) -> values on the targets' scale [B]
ValueFn = Callable[[Any, jax.Array], jax.Array]


def make_value_optimizer(algorithm: Algorithm) -> optax.GradientTransformation:
    """Adam on gradients of a norm of at most 1; targets have a standard deviation near 1."""
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(algorithm.value_learning_rate)
    )


def init_value_optimizer(algorithm: Algorithm, params: Any) -> Any:
    """The value optimiser's state before the first fit: Adam's moments, nothing without Adam."""
    if algorithm.value_solver == "gauss-newton":
        return ()
    return init_optimizer(make_value_optimizer(algorithm), params)


def fit_values(
    algorithm: Algorithm, params: Any, optimizer_state: Any, value_fn: ValueFn, batch: Batch,
    axis_name: str | None = None,
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """Least squares on the value targets: minibatches by Adam, or one step of Gauss-Newton.

    Args:
      algorithm: gives the solver and its numbers.
      params: of the value network.
      optimizer_state: of `init_value_optimizer(algorithm, params)`, or of the fit before.
      value_fn: (params, normalised observations [B, V]) -> values on the targets' scale [B].
      batch: the rollout.
      axis_name: mesh axis of the shards.

    Returns:
      (params, optimizer_state, {"value/loss", "value/skipped"}): the loss of Adam's last pass, or
      after the step of Gauss-Newton; how many steps were left out.
    """
    if algorithm.value_solver == "gauss-newton":
        params, loss, taken = gauss_newton_step(
            value_fn, params, batch.value_observation, batch.value_target, batch.weights(),
            iterations=algorithm.value_cg_iterations, damping=algorithm.value_damping,
            on_cpu=batch.on_cpu, axis_name=axis_name,
        )
        skipped = 1.0 - taken.astype(jnp.float32)
        return params, optimizer_state, {"value/loss": loss, "value/skipped": skipped}

    def loss_fn(params, observation, target, weight):
        return 0.5 * jnp.mean(weight * (value_fn(params, observation) - target) ** 2), 0.0

    params, optimizer_state, losses, skipped, _ = descend(
        loss_fn, make_value_optimizer(algorithm), params, optimizer_state,
        (batch.value_observation, batch.value_target, batch.weights()), batch.environment_keys,
        algorithm.value_epochs, algorithm.value_minibatches, axis_name,
    )
    return params, optimizer_state, {"value/loss": jnp.mean(losses[-1]), "value/skipped": skipped}
