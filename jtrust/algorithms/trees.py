"""Arithmetic on pytrees of parameters."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp

Params = Any


def tree_add(params: Params, direction: Params, scale: jax.Array | float = 1.0) -> Params:
    """params + scale direction."""
    return jax.tree.map(lambda p, d: p + scale * d, params, direction)


def tree_dot(a: Params, b: Params) -> jax.Array:
    """Inner product of two pytrees, in full float32 on every device."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return cast(jax.Array, sum(jnp.vdot(x, y, precision="highest") for x, y in leaves))


def finite(tree: Params) -> jax.Array:
    """Whether every number in `tree` is finite, bool []."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
