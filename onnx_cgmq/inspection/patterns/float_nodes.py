"""Recognizes quantizers that are written in float nodes, such as those of wide activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.inspection.patterns.grid import Grid, IntArray, is_stored, steps_of


def rounded_in_float_nodes(node: ir.Node) -> Grid | None:
    """Finds the grid of ``[Where <-] Mul <- Min <- Max <- Round <- Div`` with constants.

    Returns:
        The grid, or ``None`` if the nodes are not these, or if ``Div`` and ``Mul`` have different
        steps, so that the values are on no grid.
    """
    top: ir.Node | None = node
    passes: npt.NDArray[Any] | None = None
    if standard_op(node) == "Where":
        passes = constant_value(node.inputs[0])
        if passes is None or node.inputs[2] is None:
            return None
        top = node.inputs[2].producer()
    constants: list[npt.NDArray[Any]] = []
    steps: list[ir.Node] = []
    source: ir.Value | None = None
    for op_type in ("Mul", "Min", "Max", "Round", "Div"):
        if top is None or standard_op(top) != op_type or top.inputs[0] is None:
            return None
        if op_type != "Round":
            constant = constant_value(top.inputs[1]) if len(top.inputs) == 2 else None
            if constant is None:
                return None
            constants.append(constant)
            steps.append(top)
        source = top.inputs[0]
        top = source.producer()
    if passes is not None and node.inputs[1] is not source:
        return None
    multiplier, largest, smallest, divisor = constants
    if not np.array_equal(multiplier, divisor):
        return None
    widths = np.where(smallest == np.floor(smallest), _span_widths(largest - smallest), FLOAT_BITS)
    shape = np.broadcast_shapes(
        multiplier.shape, widths.shape, () if passes is None else passes.shape
    )
    widths = np.broadcast_to(widths, shape)
    if passes is not None:
        widths = np.where(passes, FLOAT_BITS, widths)
    parameters = [read for op in steps for read in op.inputs[1:2]]
    return Grid(
        widths.astype(np.int64),
        source,
        is_stored(source),
        ir.DataType.FLOAT,
        steps=steps_of(source, *parameters, axis=None),
    )


def _span_widths(span: npt.NDArray[Any]) -> IntArray:
    """Returns the widths of grids with ``span + 1`` codes; 32 for spans that are not whole."""
    exact = np.asarray(span, dtype=np.float64)
    whole = (exact >= 0) & (exact < 2.0**24) & (exact == np.floor(exact))
    bits = np.ceil(np.log2(np.where(whole, exact, 0.0) + 1)).astype(np.int64)
    return np.where(whole, bits, FLOAT_BITS)
