"""JAX's products of arrays, as ONNX has them (opset 18): matrices, sums, convolutions."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from jtrust.deploy.onnx_arrays import not_the_batch, shape_of
from jtrust.deploy.onnx_elementwise import Handler
from jtrust.deploy.onnx_graph import Graph, Operand, Unsayable, Value


def _dot_general(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    """A matrix product where it is one, with a constant turned round for it; else Einsum."""
    a, b = inputs
    (over_a, over_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    not_the_batch(eqn, a, over_a)
    not_the_batch(eqn, b, over_b)
    out = eqn.outvars[0].aval
    rank_a, rank_b = len(shape_of(a)), len(shape_of(b))
    if np.dtype(a.dtype) != np.dtype(out.dtype):
        raise Unsayable(f"dot_general makes {out.dtype} of {a.dtype}", "keep it in float32")
    if tuple(over_a) == (rank_a - 1,) and rank_b == 2 and len(over_b) == 1 and not batch_a:
        if tuple(over_b) == (1,):
            right = graph.add("Transpose", [graph.whole(b)], perm=[1, 0]) if (
                isinstance(b, Value)
            ) else graph.constant(np.asarray(b).T)
        else:
            right = graph.whole(b)
        return [graph.result(graph.add("MatMul", [graph.whole(a), right]), out)]
    letters = iter(string.ascii_lowercase)
    of_a = [next(letters) for _ in range(rank_a)]
    of_b = [next(letters) for _ in range(rank_b)]
    for i, j in zip((*over_a, *batch_a), (*over_b, *batch_b), strict=True):
        of_b[j] = of_a[i]
    free = [of_a[i] for i in range(rank_a) if i not in (*over_a, *batch_a)]
    free += [of_b[j] for j in range(rank_b) if j not in (*over_b, *batch_b)]
    equation = f"{''.join(of_a)},{''.join(of_b)}->{''.join([of_a[i] for i in batch_a] + free)}"
    name = graph.add("Einsum", [graph.whole(a), graph.whole(b)], equation=equation)
    return [graph.result(name, out)]


def _conv(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    x, kernel = inputs
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    if any(d != 1 for d in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise Unsayable("conv_general_dilated is transposed, or goes over groups of a batch")
    low, high = zip(*params["padding"], strict=True)
    name = graph.add(
        "Conv",
        [graph.add("Transpose", [graph.whole(x)], perm=list(numbers.lhs_spec)),
         graph.add("Transpose", [graph.whole(kernel)], perm=list(numbers.rhs_spec))],
        strides=list(params["window_strides"]), pads=[*low, *high],
        dilations=list(params["rhs_dilation"]), group=params["feature_group_count"],
    )
    back = [int(i) for i in np.argsort(numbers.out_spec)]
    return [graph.result(graph.add("Transpose", [name], perm=back), eqn.outvars[0].aval)]


OPERATIONS: dict[str, Handler] = {"conv_general_dilated": _conv, "dot_general": _dot_general}
