"""Which values of a graph can't be negative: their grids need no zero point."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.graph.operators import float_attribute, moves_codes, standard_op

_ALWAYS: Final = frozenset(
    {
        "Abs",
        "Exp",
        "HardSigmoid",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "Relu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
    }
)
"""Operators whose result is never negative."""

_KEEPS: Final = frozenset(
    {
        "Add",
        "AveragePool",
        "Ceil",
        "Concat",
        "Div",
        "Floor",
        "GlobalAveragePool",
        "Mean",
        "Min",
        "Mul",
        "Round",
        "Sum",
    }
)
"""Operators whose result is not negative if no input is."""

_REDUCTIONS: Final = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})
"""Operators whose result is not negative if the first input is not; the second one is axes."""


def nonnegative_values(graph: ir.Graph) -> frozenset[ir.Value]:
    """Values that are provably never negative, from constants and the operators before them.

    Args:
        graph: Sorted topologically; one pass over its nodes.
    """
    known: dict[ir.Value, bool] = {}
    for node in graph:
        known[node.outputs[0]] = _conclude(node, known)
    return frozenset(value for value, holds in known.items() if holds)


def _conclude(node: ir.Node, known: dict[ir.Value, bool]) -> bool:
    op = standard_op(node)
    if op in _ALWAYS:
        return True
    if op == "Clip":
        return _input_at_least_0(node, 1, {})
    if op == "ThresholdedRelu":
        return float_attribute(node, "alpha", 1.0) >= 0
    if op == "Pad":
        filled = len(node.inputs) > 2 and node.inputs[2] is not None
        return _input_at_least_0(node, 0, known) and (
            not filled or _input_at_least_0(node, 2, known)
        )
    if moves_codes(node) or op in _REDUCTIONS:
        return _input_at_least_0(node, 0, known)
    if op not in _KEEPS and op != "Max":
        return False
    evidence = (_input_at_least_0(node, index, known) for index in range(len(node.inputs)))
    return any(evidence) if op == "Max" else all(evidence)


def _input_at_least_0(node: ir.Node, index: int, known: dict[ir.Value, bool]) -> bool:
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        return False
    if value not in known:
        known[value] = _constant_at_least_0(value)
    return known[value]


def _constant_at_least_0(value: ir.Value) -> bool:
    if value.const_value is None:
        return False
    with reading(value.const_value) as array:
        return bool(np.issubdtype(array.dtype, np.number) and (array >= 0).all())
