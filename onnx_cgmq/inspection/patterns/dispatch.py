"""Finds the quantizer of a value, whichever tool wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import keeps_grid
from onnx_cgmq.inspection.patterns.codes import codes_grid
from onnx_cgmq.inspection.patterns.float_nodes import rounded_in_float_nodes
from onnx_cgmq.inspection.patterns.grid import Grid, is_stored, scalar
from onnx_cgmq.inspection.patterns.qdq import cast_and_multiply, dequantize_linear
from onnx_cgmq.inspection.patterns.quant_nodes import clipped_quant, quant_node

_PATTERNS: Final[tuple[Callable[[ir.Node], Grid | None], ...]] = (
    dequantize_linear,
    quant_node,
    clipped_quant,
    cast_and_multiply,
    rounded_in_float_nodes,
)


def find_grid(value: ir.Value) -> Grid | None:
    """Finds the grid that a value lies on; ``None`` for a float value.

    The quantizer is right above the value, or above operators that keep every value on its grid:
    movers, Relu, padding with zeros, and Concat.
    """
    dtype = value.dtype if value.const_value is None else value.const_value.dtype
    if dtype is not None and dtype.is_integer():
        return codes_grid(value)
    node = value.producer()
    if node is None:
        return None
    for pattern in _PATTERNS:
        grid = pattern(node)
        if grid is not None:
            return grid
    return _grid_from_above(node)


def _grid_from_above(node: ir.Node) -> Grid | None:
    """Finds the grid of what a node reads, if its output lies on the same grid.

    The output of Concat has the widest grid of its inputs, and none if an input is float.
    """
    if not node.inputs or node.inputs[0] is None:
        return None
    if standard_op(node) == "Concat":
        grids = [None if value is None else find_grid(value) for value in node.inputs]
        found = [grid for grid in grids if grid is not None]
        if len(found) < len(grids):
            return None
        widest = max(_widest(grid) for grid in found)
        note = next((grid.note for grid in found if grid.note), "")
        return Grid(scalar(widest), None, False, found[0].stored, note=note)
    if not keeps_grid(node):
        return None
    grid = find_grid(node.inputs[0])
    if grid is None:
        return None
    others = all(value is None or is_stored(value) for value in node.inputs[1:])
    constant = grid.constant and others
    return replace(grid, widths=scalar(_widest(grid)), constant=constant, codes=None)


def _widest(grid: Grid) -> int:
    """Returns the widest width of a grid."""
    return int(np.max(grid.widths, initial=0))
