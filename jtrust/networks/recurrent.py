"""Networks with memory: a layer, a cell that remembers, and the layers of a network without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from jtrust.networks.cells import Cell, Gated, scan_steps
from jtrust.networks.changes import Changes
from jtrust.networks.config import ACTIVATIONS, INITIALIZATIONS, NetworkConfig
from jtrust.networks.mlp import FeedForward
from jtrust.networks.protocol import Carry, Params, none_of
from jtrust.networks.running_statistics import RunningStatistics, fold_input
from jtrust.networks.sequence import Sequence, states
from jtrust.networks.state_space import S5


@dataclasses.dataclass(frozen=True)
class WithMemory:
    """What networks with memory have in common; those without have it in `Memoryless`.

    Attributes:
      precision: as there.
    """

    precision: str = dataclasses.field(default="highest", kw_only=True)

    def init(self, key: jax.Array, x: jax.Array) -> Params:
        with jax.default_matmul_precision(self.precision):
            return self._init(key, x)

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        raise NotImplementedError

    def apply(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Any, Carry]:
        with jax.default_matmul_precision(self.precision):
            return self._step(params, carry, x)

    def unroll(
        self, params: Params, carry: Carry, x: jax.Array, starts: jax.Array
    ) -> tuple[Any, Carry]:
        with jax.default_matmul_precision(self.precision):
            return self._unroll(params, carry, x, starts)

    def sequence(self, carry: Carry, x: Any, starts: jax.Array) -> Sequence:
        return Sequence(x, starts, carry)

    def following(self, carry: Carry, x: Any) -> Sequence:
        return Sequence(x[None], jnp.zeros((1, x.shape[0]), bool), carry)

    def __call__(self, params: Params, x: Any) -> Any:
        """What it says of a sequence, [T N, ...]; or of observations with nothing before them."""
        if isinstance(x, Sequence):
            outputs, _ = self.unroll(params, x.carry, x.observation, x.starts)
            return jax.tree.map(states, outputs)
        return self.apply(params, self.initial_carry(x.shape[:-1]), x)[0]

    def with_precision(self, precision: str) -> Self:
        return dataclasses.replace(self, precision=precision)

    def _init(self, key: jax.Array, x: jax.Array) -> Params:
        raise NotImplementedError

    def _step(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Any, Carry]:
        raise NotImplementedError

    def _unroll(
        self, params: Params, carry: Carry, x: jax.Array, starts: jax.Array
    ) -> tuple[Any, Carry]:
        return scan_steps(
            lambda carry, x: self._step(params, carry, x), self.initial_carry(), carry, x, starts
        )


@dataclasses.dataclass(frozen=True)
class Recurrent(WithMemory):
    """Normalised observations -> layer -> cell -> head, for policies and values.

    The head reads the layer, too, and so need not wait for a cell that has to learn first to let
    through what it is given. Over time only the cell is unrolled.

    Attributes:
      layer: the first hidden layer, which reads the normalised observation.
      changes: what it reads of the step before; None for nothing.
      activation: behind it, one of `ACTIVATIONS`.
      cell: what remembers.
      head: one of the modules of mlp.py, on what cell and layer give.
    """

    layer: nn.Dense
    changes: Changes | None
    activation: str
    cell: Cell
    head: FeedForward

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        before = () if self.changes is None else self.changes.initial_carry(batch_shape)
        return self.cell.initial_carry(batch_shape), before

    def fold_input(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        folded = {**params, "input": fold_input(params["input"], old, new)}
        if self.changes is not None:
            folded["changes"] = self.changes.fold(params["changes"], old, new)
        return folded

    def fold_output(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        return {**params, "head": self.head.fold_output(params["head"], old, new)}

    def output_layer(self, params: Params) -> dict[str, jax.Array]:
        return self.head.output_layer(params["head"])

    def with_output_layer(self, params: Params, layer: dict[str, jax.Array]) -> Params:
        return {**params, "head": self.head.with_output_layer(params["head"], layer)}

    def deviation(self, params: Params) -> Params:
        return self.head.deviation(params)

    def of_memory(self, params: Params) -> Params:
        """The cell, and in the head's first kernel the rows that read its output."""
        cell = jax.tree.map(lambda _: True, params["cell"])
        head = self.head.reading_all_but(self.layer.features, params["head"])
        return {**none_of(params), "cell": cell, "head": head}

    def with_precision(self, precision: str) -> Self:
        head = self.head.with_precision(precision)
        return dataclasses.replace(self, precision=precision, head=head)

    def _init(self, key: jax.Array, x: jax.Array) -> Params:
        layer_key, cell_key, head_key, changes_key = jax.random.split(key, 4)
        params = {"input": self.layer.init(layer_key, x)["params"]}
        if self.changes is not None:
            params["changes"] = self.changes.init(changes_key)
        carry, before = self.initial_carry()
        u, _ = self._read(params, before, x)
        params["cell"] = self.cell.init(cell_key, u)
        output, _ = self.cell.step(params["cell"], carry, u)
        return {**params, "head": self.head.init(head_key, beside(output, u))}

    def _read(
        self, params: Params, before: Any, x: jax.Array, starts: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """(the first layer [..., H], what to remember) for one step, or for all with `starts`."""
        read: Any = self.layer.apply({"params": params["input"]}, x)
        if self.changes is not None:
            own = params["changes"]
            added, before = (
                self.changes.step(own, before, x) if starts is None
                else self.changes.unroll(own, before, x, starts)
            )
            read += added
        return ACTIVATIONS[self.activation](read), before

    def _step(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Any, Carry]:
        carry, before = carry
        u, before = self._read(params, before, x)
        output, carry = self.cell.step(params["cell"], carry, u)
        return self.head(params["head"], beside(output, u)), (carry, before)

    def _unroll(
        self, params: Params, carry: Carry, x: jax.Array, starts: jax.Array
    ) -> tuple[Any, Carry]:
        carry, before = carry
        u, before = self._read(params, before, x, starts)
        outputs, carry = self.cell.unroll(params["cell"], carry, u, starts)
        return self.head(params["head"], beside(outputs, u)), (carry, before)


def beside(output: jax.Array, u: jax.Array) -> jax.Array:
    """What the head reads, [..., M + H]."""
    return jnp.concatenate([output, u], axis=-1)


def recurrent(
    config: NetworkConfig, inputs: int, layers: tuple[int, ...], head: nn.Module
) -> Recurrent:
    """A network with the memory that a configuration names.

    Args:
      config: shape and precision; `memory` is not None.
      inputs: O, numbers in an observation.
      layers: hidden layer sizes of the network, of which the first stands before the memory.
      head: on what the memory gives; it has the others.
    """
    gain, init = INITIALIZATIONS[config.initialization]
    change_gain = 1.0 if config.change_gain is None else config.change_gain
    changes = Changes(inputs, layers[0], change_gain, init(gain)) if change_gain else None
    return Recurrent(
        nn.Dense(layers[0], kernel_init=init(gain)), changes, config.activation,
        _CELLS[config.memory](config.memory_size),  # type: ignore[index]
        FeedForward(head, config.precision), precision=config.precision,
    )


_CELLS: dict[str, Callable[[int], Cell]] = {
    "gru": lambda size: Gated(nn.GRUCell(size)),
    "lstm": lambda size: Gated(nn.OptimizedLSTMCell(size)),
    "s5": S5,
}
