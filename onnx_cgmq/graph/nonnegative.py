"""Finds the values of a graph that can't be negative, whose grids need no zero point."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.graph.nodes import float_attribute, standard_op
from onnx_cgmq.graph.operators import Sign, sign_of


def nonnegative_values(graph: ir.Graph) -> frozenset[ir.Value]:
    """Returns the values that can't be negative by their operators and constants.

    Args:
        graph: A graph whose nodes are sorted topologically, because one pass goes over them.
    """
    known: dict[ir.Value, bool] = {}
    for node in graph:
        known[node.outputs[0]] = _is_output_at_least_0(node, known)
    return frozenset(value for value, holds in known.items() if holds)


def _is_output_at_least_0(node: ir.Node, known: dict[ir.Value, bool]) -> bool:
    op = standard_op(node)
    if op == "Clip":
        return _is_input_at_least_0(node, 1, {})
    if op == "ThresholdedRelu":
        return float_attribute(node, "alpha", 1.0) >= 0
    if op == "Pad":
        filled = len(node.inputs) > 2 and node.inputs[2] is not None
        return _is_input_at_least_0(node, 0, known) and (
            not filled or _is_input_at_least_0(node, 2, known)
        )
    sign = sign_of(node)
    if sign is None or sign is Sign.ALWAYS:
        return sign is not None
    if sign is Sign.LIKE_FIRST:
        return _is_input_at_least_0(node, 0, known)
    evidence = (_is_input_at_least_0(node, index, known) for index in range(len(node.inputs)))
    return any(evidence) if sign is Sign.LIKE_ANY else all(evidence)


def _is_input_at_least_0(node: ir.Node, index: int, known: dict[ir.Value, bool]) -> bool:
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        return False
    if value not in known:
        known[value] = _is_constant_at_least_0(value)
    return known[value]


def _is_constant_at_least_0(value: ir.Value) -> bool:
    if value.const_value is None:
        return False
    with reading(value.const_value) as array:
        return bool(np.issubdtype(array.dtype, np.number) and (array >= 0).all())
