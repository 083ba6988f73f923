"""Cells of memory: one step, and many steps of many episodes at once."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from jtrust.networks.sequence import where_begins

Params = Any
Carry = Any


class Cell(Protocol):
    """A function of an input and of what it remembers."""

    def init(self, key: jax.Array, u: jax.Array) -> Params:
        """Parameters; `u` is one input, [H]."""
        ...

    def initial_carry(self, batch_shape: tuple[int, ...]) -> Carry:
        """What it remembers where an episode begins, [*batch_shape, ...] each leaf."""
        ...

    def step(self, params: Params, carry: Carry, u: jax.Array) -> tuple[jax.Array, Carry]:
        """(output [..., M], the carry after it) for inputs [..., H]."""
        ...

    def unroll(
        self, params: Params, carry: Carry, u: jax.Array, starts: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """(outputs [T, N, M], the carry after the last) for inputs [T, N, H].

        Args:
          carry: before the first step, [N, ...] each leaf.
          starts: where an episode begins, bool [T, N].
        """
        ...


@dataclasses.dataclass(frozen=True)
class Gated:
    """A recurrent cell of flax.linen, unrolled by a loop over time.

    Attributes:
      module: `GRUCell` (Cho et al., 2014, arXiv:1406.1078) or `OptimizedLSTMCell` (Hochreiter and
        Schmidhuber, 1997).
    """

    module: nn.RNNCellBase

    def init(self, key: jax.Array, u: jax.Array) -> Params:
        return self.module.init(key, self.initial_carry(u.shape[:-1]), u)["params"]

    def initial_carry(self, batch_shape: tuple[int, ...]) -> Carry:
        shapes = jax.eval_shape(
            lambda key: self.module.initialize_carry(key, (*batch_shape, 1)), jax.random.key(0)
        )
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def step(self, params: Params, carry: Carry, u: jax.Array) -> tuple[jax.Array, Carry]:
        after: Any = self.module.apply({"params": params}, carry, u)
        carry, output = after
        return output, carry

    def unroll(
        self, params: Params, carry: Carry, u: jax.Array, starts: jax.Array
    ) -> tuple[jax.Array, Carry]:
        return scan_steps(
            lambda carry, u: self.step(params, carry, u), self.initial_carry(()), carry, u, starts
        )


def scan_steps(
    step: Any, initial: Carry, carry: Carry, x: jax.Array, starts: jax.Array
) -> tuple[Any, Carry]:
    """One step after another: (outputs [T, N, ...], the carry after the last).

    Args:
      step: (carry, inputs [N, ...]) -> (outputs [N, ...], carry).
      initial: carry where an episode begins, [...] each leaf.
      carry: before the first step, [N, ...] each leaf.
      x: [T, N, ...].
      starts: where an episode begins, bool [T, N].
    """

    def one(carry: Carry, inputs: tuple[jax.Array, jax.Array]) -> tuple[Carry, Any]:
        x, begins = inputs
        output, carry = step(where_begins(begins, initial, carry), x)
        return carry, output

    carry, outputs = jax.lax.scan(one, carry, (x, starts))
    return outputs, carry
