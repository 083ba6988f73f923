"""Whole rollouts as what a network with memory reads, and the environments that they are cut by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Carries:
    """What both networks remember of the episodes under way, [N, ...] each leaf.

    Attributes:
      policy: carry of the policy network; () where it has no memory.
      value: the same of the value network.
    """

    policy: Any = ()
    value: Any = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sequence:
    """T steps of N environments, in order, for a network with memory.

    Attributes:
      observation: [T, N, O], or a dictionary of such.
      starts: whether an episode begins with it, bool [T, N]: nothing before it is remembered.
      carry: what is remembered before the first step, [N, ...] each leaf.
    """

    observation: Any
    starts: jax.Array
    carry: Any


def of_observations(function: Callable[[Any], Any], x: Any) -> Any:
    """`function` of the observations of a sequence; or of `x` itself, which are observations."""
    if isinstance(x, Sequence):
        return dataclasses.replace(x, observation=function(x.observation))
    return function(x)


def observations(x: Any) -> Any:
    """Those of a sequence; or `x` itself, which are observations."""
    return x.observation if isinstance(x, Sequence) else x


def states(x: Any) -> Any:
    """What a network reads of all states at once: of [T, N, ...] it is [T N, ...]; a sequence stays
    as it is, and what a network says of it is [T N, ...]."""
    if isinstance(x, Sequence):
        return x
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def along_environments(function: Callable[[jax.Array, int], jax.Array], x: Any) -> Any:
    """`function` of each array of a rollout, and of its axis of environments.

    Args:
      function: (array, axis) -> array.
      x: pytree of arrays [T, N, ...] and of sequences.
    """

    def one(x: Any) -> Any:
        if not isinstance(x, Sequence):
            return function(x, 1)
        return Sequence(
            jax.tree.map(lambda leaf: function(leaf, 1), x.observation), function(x.starts, 1),
            jax.tree.map(lambda leaf: function(leaf, 0), x.carry),
        )

    return jax.tree.map(one, x, is_leaf=_is_sequence)


def has_sequences(x: Any) -> bool:
    """Whether there are sequences in a pytree."""
    return any(map(_is_sequence, jax.tree.leaves(x, is_leaf=_is_sequence)))


def every(stride: int, like: Any, x: Any) -> Any:
    """A share of a rollout, one in `stride`: of its time steps; or, where a network with memory
    reads it, of its environments, as many as divide them.

    Args:
      stride: at least 1.
      like: what the network reads, [T, N, O]; or a sequence of it.
      x: pytree of arrays [T, N, ...] and of sequences.
    """
    if not has_sequences(like):
        return jax.tree.map(lambda x: x[::stride], x)
    stride = math.gcd(stride, like.starts.shape[1])
    return along_environments(lambda x, axis: x[:, ::stride] if axis else x[::stride], x)


def where_begins(starts: jax.Array, initial: Any, carry: Any) -> Any:
    """The carry with which a step is taken: the initial one where an episode begins.

    Args:
      starts: bool [N].
      initial: [...] each leaf.
      carry: [N, ...] each leaf.
    """
    return jax.tree.map(
        lambda i, c: jnp.where(starts.reshape(starts.shape + (1,) * (c.ndim - 1)), i, c),
        initial, carry,
    )


def _is_sequence(x: Any) -> bool:
    return isinstance(x, Sequence)
