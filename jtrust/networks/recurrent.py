"""Networks with memory: a layer, a cell that remembers, and the layers of a network without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from jtrust.networks.cells import Cell, Gated, scan_steps
from jtrust.networks.config import ACTIVATIONS, INITIALIZATIONS, NetworkConfig
from jtrust.networks.mlp import FeedForward
from jtrust.networks.protocol import Carry, Params
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

    The layer and the head know one step each; over time only the cell is unrolled.

    Attributes:
      layer: the first hidden layer, which reads the normalised observation.
      activation: behind it, one of `ACTIVATIONS`.
      cell: what remembers.
      head: one of the modules of mlp.py, on what the cell gives.
    """

    layer: nn.Dense
    activation: str
    cell: Cell
    head: FeedForward

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        return self.cell.initial_carry(batch_shape)

    def fold_input(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        return {**params, "input": fold_input(params["input"], old, new)}

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

    def with_precision(self, precision: str) -> Self:
        head = self.head.with_precision(precision)
        return dataclasses.replace(self, precision=precision, head=head)

    def _init(self, key: jax.Array, x: jax.Array) -> Params:
        layer_key, cell_key, head_key = jax.random.split(key, 3)
        layer = self.layer.init(layer_key, x)["params"]
        u = self._read({"input": layer}, x)
        cell = self.cell.init(cell_key, u)
        output, _ = self.cell.step(cell, self.initial_carry(), u)
        return {"input": layer, "cell": cell, "head": self.head.init(head_key, output)}

    def _read(self, params: Params, x: jax.Array) -> jax.Array:
        read: Any = self.layer.apply({"params": params["input"]}, x)
        return ACTIVATIONS[self.activation](read)

    def _step(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Any, Carry]:
        output, carry = self.cell.step(params["cell"], carry, self._read(params, x))
        return self.head(params["head"], output), carry

    def _unroll(
        self, params: Params, carry: Carry, x: jax.Array, starts: jax.Array
    ) -> tuple[Any, Carry]:
        u = self._read(params, x)
        outputs, carry = self.cell.unroll(params["cell"], carry, u, starts)
        return self.head(params["head"], outputs), carry


def recurrent(config: NetworkConfig, layers: tuple[int, ...], head: nn.Module) -> Recurrent:
    """A network with the memory that a configuration names.

    Args:
      config: shape and precision; `memory` is not None.
      layers: hidden layer sizes of the network, of which the first stands before the memory.
      head: on what the memory gives; it has the others.
    """
    gain, init = INITIALIZATIONS[config.initialization]
    return Recurrent(
        nn.Dense(layers[0], kernel_init=init(gain)), config.activation,
        _CELLS[config.memory](config.memory_size),  # type: ignore[index]
        FeedForward(head, config.precision), precision=config.precision,
    )


_CELLS: dict[str, Callable[[int], Cell]] = {
    "gru": lambda size: Gated(nn.GRUCell(size)),
    "lstm": lambda size: Gated(nn.OptimizedLSTMCell(size)),
    "s5": S5,
}
