"""Minibatches for networks with memory: whole environments, whose steps stay in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.networks.sequence import Sequence, along_environments, states


def sequence_epochs(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, data: Any, keys: jax.Array,
    epochs: int, minibatches: int,
) -> tuple[Any, Any]:
    """Scans `step` over `epochs` passes of `minibatches` each, by environments.

    Of each group of as many environments as there are minibatches, one goes into each, in an order
    drawn for the group and the pass from the key of the group's first environment. So minibatches
    are the same on any number of shards that hold whole groups.

    Args:
      step: (carry, minibatch) -> (carry, outputs); of a minibatch of n environments it is given
        arrays [T n, ...], and sequences of [T, n, ...].
      carry: pytree.
      data: pytree of arrays [T, N, ...] and of sequences.
      keys: one per environment, [N].
      epochs: passes.
      minibatches: how many per pass, M; must divide N.

    Returns:
      (carry, outputs stacked [epochs, minibatches, ...]).
    """

    def order(key: jax.Array) -> jax.Array:
        """Which of a group's environments goes where in each pass, [epochs, M]."""
        draw = lambda key: jax.random.permutation(key, minibatches)  # noqa: E731
        return jax.vmap(draw)(jax.random.split(key, epochs))

    orders = jax.vmap(order, out_axes=1)(keys[::minibatches])  # [epochs, groups, M]

    def epoch(carry: Any, order: jax.Array) -> tuple[Any, Any]:
        groups = order.shape[0]
        chosen = (order + minibatches * jnp.arange(groups)[:, None]).T  # [M, groups]
        cut = along_environments(lambda x, axis: _chosen(x, chosen, axis), data)
        return jax.lax.scan(lambda c, one: step(c, _flat(one)), carry, cut)

    return jax.lax.scan(epoch, carry, orders)


def _chosen(x: jax.Array, chosen: jax.Array, axis: int) -> jax.Array:
    """[.., N, ..] -> [M, .., groups, ..], the environments of each minibatch in its own row."""
    return jnp.moveaxis(jnp.take(x, chosen, axis=axis), axis, 0)


def _flat(minibatch: Any) -> Any:
    """A minibatch with [T n, ...] in place of its arrays [T, n, ...]."""
    return jax.tree.map(states, minibatch, is_leaf=lambda x: isinstance(x, Sequence))
