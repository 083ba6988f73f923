"""JAX's operations on whole arrays, as ONNX has them (opset 18): shapes, parts, sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jtrust.deploy.onnx_elementwise import Handler
from jtrust.deploy.onnx_graph import Graph, Operand, Unsayable, Value, is_fixed, sizes


def mixes(primitive: str) -> Unsayable:
    """What is raised where an operation goes over the members of a batch."""
    return Unsayable(
        f"{primitive} goes over the members of a batch, so an action would depend on who else is "
        "in it", "have the network treat observations one by one",
    )


def shape_of(x: Operand) -> tuple:
    return x.shape if isinstance(x, Value) else sizes(np.shape(x))


def not_the_batch(eqn: Any, x: Operand, axes: Sequence[int]) -> None:
    if any(not is_fixed(shape_of(x)[axis]) for axis in axes):
        raise mixes(eqn.primitive.name)


def _broadcast_in_dim(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    name, stored = graph.stored(inputs[0])
    out = eqn.outvars[0].aval
    at = list(eqn.params["broadcast_dimensions"])
    new = [i for i in range(len(out.shape)) if i not in at]
    if new:
        name = graph.add("Unsqueeze", [name, graph.whole_numbers(new)])
    there = tuple(1 if i in new else stored[at.index(i)] for i in range(len(out.shape)))
    return [Value(name, sizes(out.shape), np.dtype(out.dtype), there)]


def _reshape(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    out = eqn.outvars[0].aval
    shape = sizes(out.shape)
    if eqn.params.get("dimensions") is not None or sum(not is_fixed(x) for x in shape) > 1:
        raise Unsayable(f"reshape to {list(shape)} is more than reading numbers in their order")
    target = graph.whole_numbers([x if is_fixed(x) else -1 for x in shape])  # type: ignore[misc]
    return [graph.result(graph.add("Reshape", [graph.whole(inputs[0]), target]), out)]


def _squeeze(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    axes = graph.whole_numbers(eqn.params["dimensions"])
    name = graph.add("Squeeze", [graph.whole(inputs[0]), axes])
    return [graph.result(name, eqn.outvars[0].aval)]


def _transpose(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    name = graph.add("Transpose", [graph.whole(inputs[0])], perm=list(eqn.params["permutation"]))
    return [graph.result(name, eqn.outvars[0].aval)]


def _concatenate(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    axis = eqn.params["dimension"]
    not_the_batch(eqn, inputs[0], [axis])
    name = graph.add("Concat", [graph.whole(x) for x in inputs], axis=axis)
    return [graph.result(name, eqn.outvars[0].aval)]


def _stack(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    axis = graph.whole_numbers([eqn.params["axis"]])
    rows = [graph.add("Unsqueeze", [graph.whole(x), axis]) for x in inputs]
    name = graph.add("Concat", rows, axis=eqn.params["axis"])
    return [graph.result(name, eqn.outvars[0].aval)]


def _cut(
    graph: Graph, eqn: Any, x: Operand, starts: Sequence, limits: Sequence, strides: Sequence
) -> list[Operand]:
    """x[starts:limits:strides], each per axis."""
    shape = shape_of(x)
    whole = [
        start == 0 and sizes([limit])[0] == size and stride == 1
        for start, limit, stride, size in zip(starts, limits, strides, shape, strict=True)
    ]
    axes = [i for i, all_of_it in enumerate(whole) if not all_of_it]
    not_the_batch(eqn, x, axes)
    if not axes:
        return [x]
    pick = lambda values: graph.whole_numbers([int(values[i]) for i in axes])  # noqa: E731
    name = graph.add(
        "Slice",
        [graph.whole(x), pick(starts), pick(limits), graph.whole_numbers(axes), pick(strides)],
    )
    return [graph.result(name, eqn.outvars[0].aval)]


def _slice(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    starts = eqn.params["start_indices"]
    strides = eqn.params["strides"] or (1,) * len(starts)
    return _cut(graph, eqn, inputs[0], starts, eqn.params["limit_indices"], strides)


def _dynamic_slice(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    x, *starts = inputs
    if any(isinstance(start, Value) for start in starts):
        raise Unsayable("dynamic_slice starts where the observation says")
    begin, limits = [], []
    wanted = sizes(eqn.params["slice_sizes"])
    for start, want, size in zip(starts, wanted, shape_of(x), strict=True):
        if not is_fixed(size) or not is_fixed(want):
            if size != want:
                raise mixes("dynamic_slice")
            begin.append(0)
            limits.append(size)
        else:
            first = min(max(int(start), 0), int(size) - int(want))  # type: ignore[arg-type]
            begin.append(first)
            limits.append(first + int(want))
    return _cut(graph, eqn, x, begin, limits, (1,) * len(begin))


def _rev(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    axes = list(eqn.params["dimensions"])
    not_the_batch(eqn, inputs[0], axes)
    of_each = lambda value: graph.whole_numbers([value] * len(axes))  # noqa: E731
    name = graph.add(
        "Slice",
        [graph.whole(inputs[0]), of_each(-1), of_each(-(2**62)), graph.whole_numbers(axes),
         of_each(-1)],
    )
    return [graph.result(name, eqn.outvars[0].aval)]


def _split(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    axis, parts = eqn.params["axis"], eqn.params["sizes"]
    not_the_batch(eqn, inputs[0], [axis])
    names = graph.add(
        "Split", [graph.whole(inputs[0]), graph.whole_numbers([int(x) for x in parts])],
        outputs=len(parts), axis=axis,
    )
    names = [names] if len(parts) == 1 else names
    return [graph.result(n, v.aval) for n, v in zip(names, eqn.outvars, strict=True)]


def _pad(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    x, value = inputs
    low, high, inside = zip(*eqn.params["padding_config"], strict=True)
    if any(inside) or min(*low, *high) < 0:
        raise Unsayable("pad cuts, or puts something between")
    not_the_batch(eqn, x, [i for i, pair in enumerate(zip(low, high, strict=True)) if any(pair)])
    name = graph.add("Pad", [graph.whole(x), graph.whole_numbers([*low, *high]),
                             graph.whole(value)])
    return [graph.result(name, eqn.outvars[0].aval)]


def _gather(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    """x[..., i, ...] with an index, or several, that are known."""
    x, indices = inputs
    numbers, shape = eqn.params["dimension_numbers"], shape_of(x)
    wanted, at = sizes(eqn.params["slice_sizes"]), numbers.start_index_map
    if isinstance(indices, Value) or len(at) != 1 or numbers.operand_batching_dims:
        raise Unsayable("gather takes numbers from where the observation says, or of several axes")
    axis = at[0]
    index = np.asarray(indices)[..., 0].astype(np.int64)
    not_the_batch(eqn, x, [axis])
    size, width = int(shape[axis]), int(wanted[axis])
    if any(w != s for i, (w, s) in enumerate(zip(wanted, shape, strict=True)) if i != axis) or (
        index.size and not (index.min() >= 0 and index.max() <= size - width)
    ):
        raise Unsayable("gather takes part of several axes, or beyond an array's end")
    if not numbers.collapsed_slice_dims:
        if index.ndim:
            raise Unsayable("gather takes several windows")
        starts = [int(index) if i == axis else 0 for i in range(len(shape))]
        limits = [int(index) + width if i == axis else s for i, s in enumerate(shape)]
        return _cut(graph, eqn, x, starts, limits, (1,) * len(shape))
    name = graph.add("Gather", [graph.whole(x), graph.constant(index)], axis=axis)
    # ONNX has the indices' axes where the axis was; JAX has them wherever they are asked for.
    rank = len(shape) - 1 + index.ndim
    ours = [i for i in range(rank) if not axis <= i < axis + index.ndim]
    its = list(range(axis, axis + index.ndim))
    order = [ours.pop(0) if i in numbers.offset_dims else its.pop(0) for i in range(rank)]
    if order != sorted(order):
        name = graph.add("Transpose", [name], perm=order)
    return [graph.result(name, eqn.outvars[0].aval)]


def _reduce(operation: str) -> Handler:
    def handler(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
        axes = list(eqn.params["axes"])
        not_the_batch(eqn, inputs[0], axes)
        name = graph.add(
            operation, [graph.whole(inputs[0]), graph.whole_numbers(axes)], keepdims=0
        )
        return [graph.result(name, eqn.outvars[0].aval)]

    return handler


def _reduce_truth(operation: str) -> Handler:
    """Whether any (ReduceMax) or all (ReduceMin) are true."""

    def handler(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
        from onnx import TensorProto

        axes = list(eqn.params["axes"])
        not_the_batch(eqn, inputs[0], axes)
        number = graph.add("Cast", [graph.whole(inputs[0])], to=TensorProto.INT32)
        name = graph.add(operation, [number, graph.whole_numbers(axes)], keepdims=0)
        name = graph.add("Cast", [name], to=TensorProto.BOOL)
        return [graph.result(name, eqn.outvars[0].aval)]

    return handler


def _arg(operation: str) -> Handler:
    def handler(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
        from onnx import TensorProto, helper

        (axis,) = eqn.params["axes"]
        not_the_batch(eqn, inputs[0], [axis])
        name = graph.whole(inputs[0])
        if np.dtype(inputs[0].dtype) == np.dtype(bool):
            name = graph.add("Cast", [name], to=TensorProto.INT32)
        name = graph.add(operation, [name], axis=axis, keepdims=0)
        to = helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params["index_dtype"]))
        return [graph.result(graph.add("Cast", [name], to=to), eqn.outvars[0].aval)]

    return handler


def _cumsum(graph: Graph, eqn: Any, inputs: Sequence[Operand]) -> list[Operand]:
    axis = eqn.params["axis"]
    not_the_batch(eqn, inputs[0], [axis])
    name = graph.add(
        "CumSum", [graph.whole(inputs[0]), graph.constant(np.int64(axis))],
        reverse=int(eqn.params["reverse"]),
    )
    return [graph.result(name, eqn.outvars[0].aval)]


OPERATIONS: dict[str, Handler] = {
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _concatenate,
    "cumsum": _cumsum,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "pad": _pad,
    "reduce_and": _reduce_truth("ReduceMin"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_or": _reduce_truth("ReduceMax"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _reduce("ReduceSum"),
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
}
