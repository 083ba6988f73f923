"""Products of the Fisher information matrix with vectors, without forming the matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Params = Any  # a pytree of arrays
Distribution = Any  # see jtrust.distributions


def mean_over(x: Any, axis_name: str | None) -> Any:
    """Mean of `x` over the shards of a mesh axis; `x` itself where there is no such axis."""
    return x if axis_name is None else jax.lax.pmean(x, axis_name)


def max_over(x: Any, axis_name: str | None) -> Any:
    """Maximum of `x` over the shards of a mesh axis; `x` itself where there is no such axis."""
    return x if axis_name is None else jax.lax.pmax(x, axis_name)


def fisher_operator(
    distribution_fn: Callable[[Params], Distribution],
    params: Params,
    damping: jax.Array | float = 0.0,
    axis_name: str | None = None,
    weight: jax.Array | None = None,
) -> Callable[[Params], Params]:
    """Returns v -> (F + damping I) v, with F the Fisher matrix averaged over states.

    With J the Jacobian of params -> distribution and M the Fisher information of the distribution
    in its own parameters, F = E_s[Jᵀ M J], which is the Hessian of
    θ ↦ E_s[D_KL(π_params || π_θ)] at θ = params (Martens, 2020, arXiv:1412.1193, section 9). The
    network is linearised once, here; each product then costs one pass forward and one back.

    Args:
      distribution_fn: params -> a distribution batched over states.
      params: pytree where the Fisher matrix is taken.
      damping: multiple of the identity that is added.
      axis_name: mesh axis whose shards each hold an equal part of the states.
      weight: of each state, like the distribution's leading axes, with a mean of 1; by default
        all weigh the same.

    Returns:
      A function from a pytree like `params` to another.
    """
    distribution, push_forward = jax.linearize(
        lambda p: distribution_fn(p).broadcast(), params
    )
    pull_back = jax.linear_transpose(push_forward, params)
    shape = distribution.batch_shape
    states = math.prod(shape)

    def mean_of(x: jax.Array) -> jax.Array:
        if weight is not None:
            x = x * weight.reshape(shape + (1,) * (x.ndim - len(shape)))
        return x / states

    def product(vector: Params) -> Params:
        cotangent = distribution.fisher(push_forward(vector))
        (pulled,) = pull_back(jax.tree.map(mean_of, cotangent))
        pulled = mean_over(pulled, axis_name)
        return jax.tree.map(lambda f, v: f + damping * v, pulled, vector)

    return product


# States of a block on a CPU, measured: docs/evidence/speed.md.
_BLOCK, _LEAST_BLOCK = 4096, 1024


def in_state_blocks(
    distribution_fn: Callable[[Params, jax.Array], Distribution],
) -> Callable[[Params, jax.Array], Distribution]:
    """(params, observations [B, O]) -> distribution [B], one block of states after another.

    For CPUs: their cache holds the hidden layers of a few thousand states and not those of all,
    which a product would fetch from memory for every layer. An accelerator is better given all
    states at once.
    """

    def apply(params: Params, observation: jax.Array) -> Distribution:
        count = observation.shape[0]
        size = max((n for n in range(1, min(_BLOCK, count) + 1) if count % n == 0), default=count)
        if not _LEAST_BLOCK <= size < count:
            return distribution_fn(params, observation)
        blocks = jax.lax.map(
            lambda o: distribution_fn(params, o).broadcast(),
            observation.reshape(count // size, size, *observation.shape[1:]),
        )
        return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), blocks)

    return apply


def fisher_vector_product(
    distribution_fn: Callable[[Params], Distribution],
    params: Params,
    vector: Params,
    damping: jax.Array | float = 0.0,
) -> Params:
    """(F + damping I) v for one vector; see `fisher_operator`, which serves many.

    Args:
      distribution_fn: params -> a distribution batched over states; the mean over states is taken.
      params: pytree where the Fisher matrix is taken.
      vector: pytree like `params`.
      damping: multiple of the identity that is added.

    Returns:
      A pytree like `params`.

    Raises:
      ValueError: if `vector` is not a pytree of the same structure and shapes as `params`.
    """
    structure: Any = jax.tree.structure(params)
    same = structure == jax.tree.structure(vector) and all(
        jnp.shape(a) == jnp.shape(b)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(vector), strict=True)
    )
    if not same:
        raise ValueError(
            f"vector must have the structure and shapes of params: "
            f"{jax.tree.map(jnp.shape, vector)} against {jax.tree.map(jnp.shape, params)}"
        )
    return fisher_operator(distribution_fn, params, damping)(vector)
