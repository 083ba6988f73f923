"""Several arrays as one, so that a step of a loop on an accelerator writes once."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """A pytree of arrays [N, ...] as one array.

    Every array that a loop puts out costs an accelerator a launch in each turn; one array costs
    one, however many stand in it.

    Attributes:
      numbers: float32 [N, K], or [T, N, K] out of a loop. Whole numbers are exact up to 2²⁴.
      structure: of the pytree.
      shapes: of its leaves, without N.
      dtypes: of its leaves.
    """

    numbers: jax.Array
    structure: Any = dataclasses.field(metadata={"static": True})
    shapes: tuple[tuple[int, ...], ...] = dataclasses.field(metadata={"static": True})
    dtypes: tuple[Any, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, tree: Any) -> Packed:
        """Packs `tree`, [N, ...] each leaf."""
        leaves, structure = jax.tree.flatten(tree)
        columns = [x.reshape(x.shape[0], -1).astype(jnp.float32) for x in leaves]
        return cls(
            jnp.concatenate(columns, axis=1), structure,
            tuple(x.shape[1:] for x in leaves), tuple(x.dtype for x in leaves),
        )

    def tree(self) -> Any:
        """What was packed, with the leading axes that `numbers` has now."""
        leaves, first = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            size = math.prod(shape)
            part = self.numbers[..., first:first + size]
            leaves.append(part.reshape(*self.numbers.shape[:-1], *shape).astype(dtype))
            first += size
        return self.structure.unflatten(leaves)
