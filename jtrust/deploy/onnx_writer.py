"""From a function of JAX's to an ONNX graph: its jaxpr, operation by operation.

What depends on parameters alone is computed here, by JAX and at the function's own precision, and
stands in the graph as a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import numpy as np

from jtrust.deploy import onnx_arrays, onnx_elementwise, onnx_products
from jtrust.deploy.onnx_bounds import join_bounds
from jtrust.deploy.onnx_graph import BATCH, Graph, Operand, Unsayable, Value, check_type, sizes

OPSET = 18  # reductions take their axes as an input from here on; ONNX Runtime from 1.14

OPERATIONS = {
    **onnx_arrays.OPERATIONS, **onnx_elementwise.OPERATIONS, **onnx_products.OPERATIONS,
}
# Calls of a function, by the parameter that holds it.
_CALLS = {
    "checkpoint": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "jit": "jaxpr",
    "pjit": "jaxpr", "remat": "jaxpr", "remat2": "jaxpr",
}
_LOOPS = ("scan", "while", "cond")


def trace(function: Callable, specs: Sequence[tuple[tuple[int, ...], Any]]) -> Any:
    """The jaxpr of a function of batches, whatever their size.

    Args:
      function: arrays [batch, ...] -> a tuple of arrays.
      specs: (shape without the batch, type) of each of its arguments.

    Raises:
      Unsayable: it does something else for another size of the batch.
    """
    (batch,) = jax.export.symbolic_shape(BATCH)
    shapes = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in specs]
    try:
        return jax.jit(lambda *arrays: function(*arrays)).trace(*shapes).jaxpr
    except Exception as error:  # a module of the user's own raises what it likes
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise Unsayable(
            f"the network cannot be traced for any size of the batch: {type(error).__name__}: "
            f"{said}", "let it do the same whatever the batch's size",
        ) from error


def to_graph(jaxpr: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """The graph of a `jaxpr` whose arguments and results have these names.

    Raises:
      Unsayable: an operation that ONNX does not have, or that nobody has said here.
    """
    graph = Graph()
    graph.first_input = inputs[0]
    arguments: list[Operand] = []
    for name, variable in zip(inputs, jaxpr.jaxpr.invars, strict=True):
        arguments.append(graph.result(name, variable.aval))
    found = _run(graph, jaxpr.jaxpr, jaxpr.consts, arguments)
    for name, x, variable in zip(outputs, found, jaxpr.jaxpr.outvars, strict=True):
        source = _repeated(graph, x, variable.aval)
        graph.nodes.append(_identity(source, name))
    graph.prune(outputs)
    join_bounds(graph)
    return graph


def _identity(source: str, name: str) -> Any:
    from onnx import helper

    return helper.make_node("Identity", [source], [name], name)


def _repeated(graph: Graph, x: Operand, aval: Any) -> str:
    """A result in its full shape, though it may be the same for every member of the batch."""
    name, stored = graph.stored(x)
    return graph.whole(Value(name, sizes(aval.shape), np.dtype(aval.dtype), stored))


def _run(graph: Graph, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Operand]) -> list:
    """What a jaxpr makes of its arguments, each a value of the graph or an array."""
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        if not _is_variable(atom):
            return np.asarray(atom.val, atom.aval.dtype)
        return known[atom]

    for eqn in _needed(jaxpr):
        results = _apply(graph, eqn, [read(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
    """The equations on which the results rest."""
    wanted = set(filter(_is_variable, jaxpr.outvars))
    found = []
    for eqn in reversed(jaxpr.eqns):
        if wanted.intersection(eqn.outvars):
            found.append(eqn)
            wanted.update(filter(_is_variable, eqn.invars))
    return found[::-1]


def _is_variable(atom: Any) -> bool:
    return not hasattr(atom, "val")  # else a literal


def _apply(graph: Graph, eqn: Any, inputs: list[Any]) -> Sequence[Any]:
    name = eqn.primitive.name
    if name in _CALLS:
        inner = eqn.params[_CALLS[name]]
        closed = hasattr(inner, "consts")
        return _run(graph, inner.jaxpr if closed else inner, inner.consts if closed else (), inputs)
    if name == "dim_as_value":
        raise onnx_arrays.mixes("the batch's size stands in the arithmetic, which")
    shapes = [sizes(variable.aval.shape) for variable in eqn.outvars]
    fixed = not any(isinstance(size, str) for shape in shapes for size in shape)
    if fixed and not any(isinstance(x, Value) for x in inputs):
        results = eqn.primitive.bind(*inputs, **eqn.params)
        return results if eqn.primitive.multiple_results else [results]
    handler = OPERATIONS.get(name)
    if handler is None:
        raise _unknown(name)
    for variable in eqn.outvars:
        check_type(variable.aval.dtype, name)
    return handler(graph, eqn, inputs)


def _unknown(name: str) -> Unsayable:
    if name.startswith(("random_", "threefry", "rng_")):
        return Unsayable(
            f"the network draws random numbers itself ({name})",
            "have it return a distribution and leave drawing to that",
        )
    if name in _LOOPS:
        return Unsayable(
            f"{name} has no counterpart here", "write loops of a fixed length out in Python, and "
            "choices by jnp.where, or take --format stablehlo",
        )
    return Unsayable(
        f"{name} has no counterpart here", "use other operations in the network, or take --format "
        "stablehlo, which says whatever JAX computes",
    )
