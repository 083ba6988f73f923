"""Backtracking along a direction until a step is acceptable, or refusing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class LineSearch(NamedTuple):
    """What a line search found.

    Attributes:
      scale: the fraction of the full step taken, []; 0 where every trial was refused.
      accepted: whether any trial was accepted, [].
      trials: how many were evaluated, [].
      aux: what the acceptance function returned beside its verdict, at the trial taken; at
        scale 0 where none was.
    """

    scale: jax.Array
    accepted: jax.Array
    trials: jax.Array
    aux: Any


def backtracking_line_search(
    accept: Callable[[jax.Array], tuple[jax.Array, Any]],
    none: Any,
    *,
    factor: float = 0.8,
    max_trials: int = 15,
) -> LineSearch:
    """Tries scales 1, factor, factor², ... and takes the first that `accept` approves.

    A `while_loop`: it usually ends at the first or second trial, which saves more than the
    loop's condition costs.

    Args:
      accept: scale [] -> (verdict [], aux). Must be the same on every shard.
      none: `aux` to report when nothing is accepted; the same structure.
      factor: ratio of successive scales, in (0, 1).
      max_trials: how many scales to try before refusing.

    Returns:
      A `LineSearch`.
    """

    def keep_trying(carry):
        trial, accepted, _, _ = carry
        return ~accepted & (trial < max_trials)

    def attempt(carry):
        trial, _, _, _ = carry
        scale = jnp.asarray(factor, jnp.float32) ** trial
        accepted, aux = accept(scale)
        scale = jnp.where(accepted, scale, 0.0)
        aux = jax.tree.map(lambda a, n: jnp.where(accepted, a, n), aux, none)
        return trial + 1, accepted, scale, aux

    start = (jnp.int32(0), jnp.bool_(False), jnp.float32(0.0), none)
    trials, accepted, scale, aux = jax.lax.while_loop(keep_trying, attempt, start)
    return LineSearch(scale, accepted, trials, aux)
