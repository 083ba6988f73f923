"""JAX's operations that are taken number by number, as ONNX has them (opset 18)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jtrust.deploy.onnx_graph import Graph, Operand, Unsayable, Value, check_type

Handler = Callable[[Graph, Any, Sequence[Operand]], list[Operand]]

_SAME = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "add": "Add", "add_any": "Add", "asin": "Asin",
    "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh", "ceil": "Ceil", "cos": "Cos",
    "cosh": "Cosh", "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp", "floor": "Floor",
    "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "log": "Log",
    "logistic": "Sigmoid", "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg",
    "pow": "Pow", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "sub": "Sub",
    "tan": "Tan", "tanh": "Tanh",
}
_BITWISE = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}
_UNCHANGED = ("copy", "copy_p", "name", "optimization_barrier", "stop_gradient")


def _dtype(x: Operand) -> np.dtype:
    return np.dtype(x.dtype)


def _same(operation: str) -> Handler:
    return lambda graph, eqn, inputs: [graph.elementwise(operation, inputs, eqn.outvars[0].aval)]


def _made_of(write: Callable[..., str]) -> Handler:
    """Several nodes; `write` takes the graph, the type of the first operand and names."""

    def handler(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
        dtype = _dtype(inputs[0])
        compose = lambda graph, *names: write(graph, dtype, *names)  # noqa: E731
        return [graph.elementwise(compose, inputs, eqn.outvars[0].aval)]

    return handler


def _scalar(graph: Graph, dtype: np.dtype, value: float) -> str:
    return graph.constant(np.asarray(value, dtype))


def _expm1(graph: Graph, dtype: np.dtype, x: str) -> str:
    """e^x - 1 = tanh(x/2) (e^x + 1), in which nothing cancels near zero."""
    half = graph.add("Tanh", [graph.add("Mul", [x, _scalar(graph, dtype, 0.5)])])
    above = graph.add("Add", [graph.add("Exp", [x]), _scalar(graph, dtype, 1)])
    return graph.add("Mul", [half, above])


def _log1p(graph: Graph, dtype: np.dtype, x: str) -> str:
    """log(1 + x): below 1 as log(u) x / (u - 1) with u = 1 + x rounded, whose errors cancel."""
    one = _scalar(graph, dtype, 1)
    u = graph.add("Add", [x, one])
    log = graph.add("Log", [u])
    rounded = graph.add("Sub", [u, one])
    exact = graph.add("Equal", [rounded, _scalar(graph, dtype, 0)])
    divisor = graph.add("Where", [exact, one, rounded])
    small = graph.add("Mul", [log, graph.add("Div", [x, divisor])])
    small = graph.add("Where", [exact, x, small])
    return graph.add("Where", [graph.add("Less", [x, one]), small, log])


def _cbrt(graph: Graph, dtype: np.dtype, x: str) -> str:
    root = graph.add("Pow", [graph.add("Abs", [x]), _scalar(graph, dtype, 1 / 3)])
    return graph.add("Mul", [graph.add("Sign", [x]), root])


def _is_finite(graph: Graph, dtype: np.dtype, x: str) -> str:
    broken = graph.add("Or", [graph.add("IsInf", [x]), graph.add("IsNaN", [x])])
    return graph.add("Not", [broken])


_MADE: dict[str, Callable[..., str]] = {
    "cbrt": _cbrt,
    "erfc": lambda g, t, x: g.add("Sub", [_scalar(g, t, 1), g.add("Erf", [x])]),
    "exp2": lambda g, t, x: g.add("Pow", [_scalar(g, t, 2), x]),
    "expm1": _expm1,
    "is_finite": _is_finite,
    "log1p": _log1p,
    "ne": lambda g, t, x, y: g.add("Not", [g.add("Equal", [x, y])]),
    "rem": lambda g, t, x, y: g.add("Mod", [x, y], fmod=1),
    "rsqrt": lambda g, t, x: g.add("Reciprocal", [g.add("Sqrt", [x])]),
    "square": lambda g, t, x: g.add("Mul", [x, x]),
}


def _integer_pow(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    power = eqn.params["y"]

    def write(graph: Graph, x: str) -> str:
        if power not in (2, 3):
            return graph.add("Pow", [x, _scalar(graph, _dtype(inputs[0]), power)])
        found = graph.add("Mul", [x, x])
        return found if power == 2 else graph.add("Mul", [found, x])

    return [graph.elementwise(write, inputs, eqn.outvars[0].aval)]


def _bitwise(operation: str) -> Handler:
    def handler(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
        name = operation if _dtype(inputs[0]) == np.dtype(bool) else f"Bitwise{operation}"
        return [graph.elementwise(name, inputs, eqn.outvars[0].aval)]

    return handler


def _round(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    dtype = _dtype(inputs[0])

    def away(graph: Graph, x: str) -> str:
        """Halves away from zero."""
        near = graph.add("Add", [graph.add("Abs", [x]), _scalar(graph, dtype, 0.5)])
        return graph.add("Mul", [graph.add("Sign", [x]), graph.add("Floor", [near])])

    to_even = eqn.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN
    return [graph.elementwise("Round" if to_even else away, inputs, eqn.outvars[0].aval)]


def _clamp(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    low, x, high = inputs
    write = lambda g, a, b, c: g.add("Min", [g.add("Max", [b, a]), c])  # noqa: E731
    return [graph.elementwise(write, [low, x, high], eqn.outvars[0].aval)]


def _select(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    which, *cases = inputs
    kind = _dtype(which)

    def write(graph: Graph, which: str, *cases: str) -> str:
        if kind == np.dtype(bool):
            return graph.add("Where", [which, cases[1], cases[0]]) if len(cases) > 1 else cases[0]
        found = cases[0]
        for i, case in enumerate(cases[1:], 1):
            here = graph.add("Equal", [which, graph.constant(np.asarray(i, kind))])
            found = graph.add("Where", [here, case, found])
        return found

    return [graph.elementwise(write, [which, *cases], eqn.outvars[0].aval)]


def _convert(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    from onnx import helper

    new = np.dtype(eqn.params["new_dtype"])
    check_type(new, "convert_element_type")
    x = inputs[0]
    if isinstance(x, Value) and x.dtype == new:
        return [x]
    to = helper.np_dtype_to_tensor_dtype(new)
    cast = lambda graph, name: graph.add("Cast", [name], to=to)  # noqa: E731
    return [graph.elementwise(cast, inputs, eqn.outvars[0].aval)]


def _reduce_precision(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    if (eqn.params["exponent_bits"], eqn.params["mantissa_bits"]) != (8, 23):
        raise Unsayable("reduce_precision rounds to less than float32")
    return list(inputs)


OPERATIONS: dict[str, Handler] = {
    **{name: _same(operation) for name, operation in _SAME.items()},
    **{name: _made_of(write) for name, write in _MADE.items()},
    **{name: _bitwise(operation) for name, operation in _BITWISE.items()},
    **{name: lambda graph, eqn, inputs: list(inputs) for name in _UNCHANGED},
    "clamp": _clamp,
    "convert_element_type": _convert,
    "integer_pow": _integer_pow,
    "reduce_precision": _reduce_precision,
    "round": _round,
    "select_n": _select,
}
