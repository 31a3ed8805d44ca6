"""Weights that an operator reads transposed: one tensor, whatever layouts it is used in."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import mac_spec, quantized_spec


def transposes_above(value: ir.Value) -> tuple[ir.Node, ...]:
    """The Transpose nodes directly above a value, nearest first."""
    found: list[ir.Node] = []
    node = value.producer()
    while node is not None and standard_op(node) == "Transpose" and node.inputs[0] is not None:
        found.append(node)
        node = node.inputs[0].producer()
    return tuple(found)


def stored_weight(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """The constant that a value is, perhaps transposed; otherwise the value itself.

    Returns:
        The constant and the Transpose nodes between, nearest to ``value`` first.
    """
    path = transposes_above(value)
    source = path[-1].inputs[0] if path else None
    if source is None or source.const_value is None:
        return value, ()
    return source, path


def permutation(path: tuple[ir.Node, ...], rank: int) -> tuple[int, ...]:
    """Axis of the source for every axis of the value below a path of Transpose nodes."""
    axes = tuple(range(rank))
    for node in path:
        attribute = node.attributes.get("perm")
        perm = tuple(reversed(range(rank))) if attribute is None else tuple(attribute.as_ints())
        axes = tuple(perm[axis] for axis in axes)
    return axes


def constants_read(model: ir.Model) -> Iterator[ir.Value]:
    """Weights, biases and tables that nodes read without a quantizer; each once."""
    found: dict[ir.Value, None] = {}
    for node in model.graph.all_nodes():
        spec = quantized_spec(node) or mac_spec(node)
        if spec is None:
            continue
        values = [stored_weight(value)[0] for _, value in spec.operand_values(node)]
        for value in (*values, spec.bias_value(node)):
            if value is not None and value.const_value is not None:
                found[value] = None
    yield from found
