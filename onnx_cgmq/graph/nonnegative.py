"""Which values of a graph can't be negative: their grids need no zero point."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.opspec import float_attribute, moves_codes, standard_op

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
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Round",
        "Sum",
    }
)
"""Operators whose result is not negative if no input is (axes and sizes are not)."""


def is_nonnegative(value: ir.Value | None) -> bool:
    """Whether a value is provably never negative, from constants and the operators before it."""
    known: dict[ir.Value, bool] = {}
    stack = [value]
    while stack:  # depth first without recursion: graphs can be deeper than Python's stack
        current = stack[-1]
        if current is None or current in known:
            stack.pop()
            continue
        waiting = [v for v in _evidence(current) if v not in known]
        if waiting:
            stack.extend(waiting)
            continue
        known[current] = _conclude(current, known)
        stack.pop()
    return value is not None and known[value]


def _evidence(value: ir.Value) -> list[ir.Value]:
    """The values that a conclusion about this one rests on."""
    node = value.producer()
    if node is None or value.index() != 0:
        return []
    inputs = [v for v in node.inputs if v is not None]
    op = standard_op(node)
    if moves_codes(node) or op == "Pad":
        return inputs[:1]
    if op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"):
        return inputs[:1]  # the second one is axes, which may be negative
    return inputs if op in _KEEPS or op == "Max" else []


def _conclude(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    node = value.producer()
    if node is None:
        return value.const_value is not None and bool((value.const_value.numpy() >= 0).all())
    if value.index() != 0:
        return False
    op = standard_op(node)
    if op in _ALWAYS:
        return True
    if op == "Clip":
        return _constant_at_least_0(node, 1)
    if op == "ThresholdedRelu":
        return float_attribute(node, "alpha", 1.0) >= 0
    evidence = [known[v] for v in _evidence(value)]
    if op == "Pad":
        filled = len(node.inputs) > 2 and node.inputs[2] is not None
        return all(evidence) and (not filled or _constant_at_least_0(node, 2))
    return any(evidence) if op == "Max" else bool(evidence) and all(evidence)


def _constant_at_least_0(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None or value.const_value is None:
        return False
    array = value.const_value.numpy()
    return bool(np.issubdtype(array.dtype, np.number) and (array >= 0).all())
