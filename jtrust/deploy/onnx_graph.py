"""An ONNX graph while it is written: nodes, constants, and arrays that are yet to be repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jtrust import checks

BATCH = "batch"  # the name of the one dimension whose size is open

Size = int | str
Shape = tuple[Size, ...]

# What ONNX Runtime's CPU computes as it is asked to: bfloat16 it does not, float16 in float32.
_TYPES = frozenset(map(np.dtype, (
    "float32", "float64", "bool", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
)))


class Unsayable(checks.BadArgument):
    """What a policy does cannot be said in ONNX, or not by what is known here."""

    def __init__(self, what: str, remedy: str = ""):
        super().__init__(
            "format", "onnx",
            f"{what}; " + (remedy or "change the network, or take --format stablehlo, which says "
                           "whatever JAX computes"),
        )


@dataclasses.dataclass(frozen=True)
class Value:
    """An array that the graph computes.

    Attributes:
      name: in the graph.
      shape: as JAX has it; `BATCH`, or an expression of it, where the size is open.
      dtype: its type.
      stored: as the graph has it: of the same rank, with 1 where it is still to be repeated. What
        is taken number by number in ONNX repeats by itself, so most never are.
    """

    name: str
    shape: Shape
    dtype: np.dtype
    stored: Shape


Operand = Value | jax.Array | np.ndarray


def sizes(shape: Sequence[Any]) -> Shape:
    """A shape of JAX's, its open sizes as text."""
    return tuple(x if isinstance(x, str) else int(x) if is_fixed(x) else str(x) for x in shape)


def is_fixed(size: Any) -> bool:
    return isinstance(size, (int, np.integer))


def check_type(dtype: Any, primitive: str) -> None:
    """Raises `Unsayable` for numbers of a type that ONNX Runtime does not compute with."""
    if np.dtype(dtype) not in _TYPES:
        raise Unsayable(
            f"{primitive} gives {dtype}, which ONNX Runtime's CPU does not compute with",
            "keep the network in float32",
        )


class Graph:
    """Nodes in the order in which they are computed.

    Attributes:
      nodes: of `onnx.NodeProto`.
      initializers: of `onnx.TensorProto`, by name.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self._constants: dict[tuple, str] = {}
        self._count = 0
        self._batch: str | None = None
        self.first_input = ""

    def add(self, operation: str, inputs: Sequence[str], outputs: int = 1, **attributes) -> Any:
        """One node: the name of its output, or a list of names where there are several."""
        from onnx import helper

        self._count += 1
        names = [f"{operation.lower()}_{self._count}" + f"_{i}" * (i > 0) for i in range(outputs)]
        self.nodes.append(helper.make_node(operation, list(inputs), names, names[0], **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any) -> str:
        """The name of a constant; equal ones are kept once."""
        from onnx import numpy_helper

        array = np.ascontiguousarray(np.asarray(array)).reshape(np.shape(array))
        check_type(array.dtype, "a constant")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = name
            self.initializers[name] = numpy_helper.from_array(array, name)
        return self._constants[key]

    def whole_numbers(self, values: Sequence[int]) -> str:
        """A constant int64 vector, as axes and shapes are given."""
        return self.constant(np.asarray(values, np.int64))

    def stored(self, x: Operand) -> tuple[str, Shape]:
        """(name, shape) of an operand as the graph has it."""
        if isinstance(x, Value):
            return x.name, x.stored
        return self.constant(x), sizes(np.shape(x))

    def whole(self, x: Operand) -> str:
        """The name of an operand in its full shape."""
        name, stored = self.stored(x)
        if not isinstance(x, Value) or stored == x.shape:
            return name
        return self.add("Expand", [name, self._shape(x.shape)])

    def _shape(self, shape: Shape) -> str:
        """The name of a shape, as an int64 vector that is known once the batch is."""
        if all(map(is_fixed, shape)):
            return self.whole_numbers([int(x) for x in shape])
        if any(not is_fixed(x) and x != BATCH for x in shape):
            raise Unsayable(f"an array is repeated to the shape {list(shape)}")
        if self._batch is None:
            self._batch = self.add("Shape", [self.first_input], start=0, end=1)
        parts = [self._batch if x == BATCH else self.whole_numbers([int(x)]) for x in shape]
        return self.add("Concat", parts, axis=0) if len(parts) > 1 else parts[0]

    def elementwise(
        self, operation: str | Callable[..., str], operands: Sequence[Operand], out: Any,
    ) -> Value:
        """What is taken number by number, of operands that repeat by themselves.

        Args:
          operation: of ONNX, or a function of the graph and of names that gives the result's name.
          operands: of one shape, or scalars.
          out: shape and type of the result.
        """
        found = [self.stored(x) for x in operands]
        names = [name for name, _ in found]
        name = self.add(operation, names) if isinstance(operation, str) else operation(self, *names)
        return Value(name, sizes(out.shape), np.dtype(out.dtype), repeated([s for _, s in found]))

    def prune(self, outputs: Sequence[str]) -> None:
        """Drops nodes and constants on which no output rests."""
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        self.nodes = kept[::-1]
        self.initializers = {k: v for k, v in self.initializers.items() if k in wanted}

    def result(self, name: str, out: Any) -> Value:
        """A value that the graph has in its full shape."""
        shape = sizes(out.shape)
        return Value(name, shape, np.dtype(out.dtype), shape)


def repeated(shapes: Sequence[Shape]) -> Shape:
    """The shape of what is taken number by number of arrays of these, as numpy has it."""
    rank = max(map(len, shapes))
    filled = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((x for x in column if x != 1), 1) for column in zip(*filled, strict=True))
