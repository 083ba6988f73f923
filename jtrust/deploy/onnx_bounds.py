"""Bounds that are numbers as ONNX Runtime has them fastest: Clip, and Relu behind a product."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jtrust.deploy.onnx_graph import Graph


def join_bounds(graph: Graph) -> None:
    """Puts Clip for a Max inside a Min, both with one number, and Relu for a Max with zero."""
    from onnx import helper

    uses = Counter(name for node in graph.nodes for name in node.input)
    made_by = {node.output[0]: node for node in graph.nodes}
    for node in list(graph.nodes):
        high, inner = _bounded(graph, node, "Min")
        below = made_by.get(inner)
        if below is None or uses[inner] != 1:
            continue
        low, x = _bounded(graph, below, "Max")
        if x:
            clip = helper.make_node("Clip", [x, low, high], list(node.output), node.name)
            graph.nodes[graph.nodes.index(node)] = clip
            graph.nodes.remove(below)
    for i, node in enumerate(graph.nodes):
        bound, x = _bounded(graph, node, "Max")
        if x and not any(graph.initializers[bound].raw_data):
            graph.nodes[i] = helper.make_node("Relu", [x], list(node.output), node.name)
    wanted = {name for node in graph.nodes for name in node.input}
    graph.initializers = {k: v for k, v in graph.initializers.items() if k in wanted}


def _bounded(graph: Graph, node: Any, operation: str) -> tuple[str, str]:
    """(the bound, what it bounds) of a Min or Max with a constant float32; ("", "") of others."""
    from onnx import TensorProto

    if node.op_type == operation:
        for bound, x in (tuple(node.input), tuple(node.input)[::-1]):
            found = graph.initializers.get(bound)
            if found is not None and not found.dims and found.data_type == TensorProto.FLOAT:
                return bound, x
    return "", ""
