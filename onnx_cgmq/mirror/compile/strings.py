"""Leaves out what only outputs of strings need, such as names of classes: torch has no strings."""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.graph.uses import values_read


def outputs_without_strings(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """Returns the outputs of a graph that are tensors of numbers; all if none is."""
    numbers = tuple(value for value in graph.outputs if value.dtype is not ir.DataType.STRING)
    return numbers or tuple(graph.outputs)


def nodes_without_strings(graph: ir.Graph) -> tuple[ir.Node, ...]:
    """Returns the nodes of a graph, without those that only its outputs of strings need."""
    needed = set(outputs_without_strings(graph))
    left_out = set(graph.outputs) - needed
    kept = []
    for node in reversed(graph):
        if needed.isdisjoint(node.outputs) and not left_out.isdisjoint(node.outputs):
            left_out.update(values_read(node))
        else:
            needed.update(values_read(node))
            kept.append(node)
    return tuple(reversed(kept))
