"""Conjugate gradients for a fixed number of iterations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

# In full float32 on every device: the recursion amplifies rounding.
_dot = functools.partial(jnp.vdot, precision="highest")


def conjugate_gradient(
    matvec: Callable[[Any], Any], b: Any, iterations: int
) -> tuple[Any, jax.Array]:
    """Solves A x = b for a symmetric positive definite A (Hestenes and Stiefel, 1952).

    The trip count is fixed, so an accelerator never waits for the host, and the start is zero, so
    A is applied `iterations` times and no more; `jax.scipy.sparse.linalg.cg` loops on a condition,
    applies A once more for a start of zero, and does not return the residual. Iterations after
    the residual has reached zero, or after a direction of no positive curvature, change nothing.

    Args:
      matvec: x -> A x on pytrees like `b`.
      b: right-hand side, a pytree.
      iterations: how many products to spend.

    Returns:
      (x, residual norm): the solution, a pytree like `b`, and ‖b - A x‖₂ as the recursion
      carries it, a scalar.

    Raises:
      ValueError: if `iterations` is not a whole number from 1 up.
    """
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise ValueError(f"iterations={iterations!r}: must be a whole number from 1 up")
    # One flat vector: the recursion is then a handful of fused operations, not a handful per leaf.
    flat_b, unravel = ravel_pytree(b)

    def step(carry, _):
        x, residual, direction, squared = carry
        product = ravel_pytree(matvec(unravel(direction)))[0]
        curvature = _dot(direction, product)
        active = (curvature > 0) & (squared > 0)
        length = jnp.where(active, squared / jnp.where(active, curvature, 1.0), 0.0)
        x = x + length * direction
        residual = residual - length * product
        new_squared = jnp.where(active, _dot(residual, residual), squared)
        ratio = jnp.where(active, new_squared / jnp.where(active, squared, 1.0), 0.0)
        direction = jnp.where(active, residual + ratio * direction, direction)
        return (x, residual, direction, new_squared), None

    start = (jnp.zeros_like(flat_b), flat_b, flat_b, _dot(flat_b, flat_b))
    (x, _, _, squared), _ = jax.lax.scan(step, start, length=iterations)
    return unravel(x), jnp.sqrt(squared)
