"""Least squares in a few large steps of second order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.algorithms.trees import finite, tree_add
from jtrust.distributions import DiagonalGaussian
from jtrust.networks.sequence import every, has_sequences, states
from jtrust.trust_region import (
    backtracking_line_search,
    conjugate_gradient,
    fisher_operator,
    in_state_blocks,
    mean_over,
)

# States from which the curvature is taken: it steers a step and never judges it.
_CURVATURE_STATES = 16_384
_MOST_HALVINGS = 8


def gauss_newton_step(
    value_fn: Callable[[Any, Any], jax.Array], params: Any, observation: Any,
    target: jax.Array, weight: jax.Array, *, iterations: int, damping: jax.Array | float,
    on_cpu: bool = False, axis_name: str | None = None,
) -> tuple[Any, jax.Array, jax.Array]:
    """One step of Gauss-Newton (Levenberg, 1944) towards min_θ E[w (v_θ(s) - y)²] / 2.

    Least squares is maximum likelihood under a normal distribution of unit variance, and its
    Gauss-Newton matrix G = E[w J Jᵀ] that distribution's Fisher matrix: the step d of
    (G + damping I) d = -gradient comes from the conjugate gradients and products that the policy
    uses. It is halved until the loss over all states has fallen, and left out where it never does.

    Args:
      value_fn: (params, observations [B, O]) -> values [B]; or a sequence -> [T N].
      params: pytree.
      observation: [T, N, O], or a sequence of such.
      target: y, [T, N].
      weight: w, [T, N], with a mean of 1 over all shards.
      iterations: of conjugate gradients, one product with G each. Few of them regularise too:
        directions that the states hardly bear out come last.
      damping: multiple of the identity that is added to G.
      on_cpu: whether to take states in blocks that fit a CPU's cache.
      axis_name: mesh axis of the shards.

    Returns:
      (params, loss after the step [], whether all was finite, bool []).
    """
    inputs = states(observation)
    targets, weights = target.reshape(-1), weight.reshape(-1)

    def loss_at(params: Any) -> jax.Array:
        error = value_fn(params, inputs) - targets
        return 0.5 * jnp.mean(weights * error**2)

    loss, gradient = mean_over(jax.value_and_grad(loss_at)(params), axis_name)
    steps, environments = target.shape
    stride = _stride(steps, environments, axis_name)
    some, some_weights = (every(stride, observation, x) for x in (observation, weight))
    some = states(some)

    def as_gaussian(params: Any, inputs: Any) -> DiagonalGaussian:
        return DiagonalGaussian(value_fn(params, inputs)[:, None], jnp.zeros(1))

    by_state = on_cpu and not has_sequences(observation)
    distribution_fn = in_state_blocks(as_gaussian) if by_state else as_gaussian
    matrix = fisher_operator(
        lambda p: distribution_fn(p, some), params, damping, axis_name, some_weights.reshape(-1)
    )
    step, _ = conjugate_gradient(matrix, gradient, iterations)

    def accept(scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        candidate = tree_add(params, step, -scale)
        new = mean_over(loss_at(candidate), axis_name)
        return (new < loss) & finite(candidate), new  # a comparison with NaN is false

    search = backtracking_line_search(accept, loss, factor=0.5, max_trials=_MOST_HALVINGS)
    # Not a product with zero: the step itself may not be finite.
    new_params = jax.tree.map(
        lambda p, d: jnp.where(search.accepted, p - search.scale * d, p), params, step
    )
    return new_params, search.aux, jnp.isfinite(loss) & finite(step)


def _stride(steps: int, environments: int, axis_name: str | None) -> int:
    """One state in how many is enough for the curvature; at most one time step in T."""
    shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    return min(max(steps * environments * shards // _CURVATURE_STATES, 1), steps)
