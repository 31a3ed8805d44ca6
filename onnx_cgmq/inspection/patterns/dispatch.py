"""Finds the quantizer of a value, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import keeps_grid
from onnx_cgmq.inspection.patterns.codes import codes_grid
from onnx_cgmq.inspection.patterns.float_nodes import rounded
from onnx_cgmq.inspection.patterns.grid import Grid, is_stored, scalar
from onnx_cgmq.inspection.patterns.qdq import dequantized, stepped
from onnx_cgmq.inspection.patterns.quant_nodes import clipped_quant, quant_node

_PATTERNS: Final[tuple[Callable[[ir.Node], Grid | None], ...]] = (
    dequantized,
    quant_node,
    clipped_quant,
    stepped,
    rounded,
)


def find_grid(value: ir.Value) -> Grid | None:
    """The grid that a value lies on, or ``None`` for a float value.

    Looked for are quantizers right above the value, and above operators that keep every value on
    its grid: those that move or select elements, Relu, padding with zeros, Concat.
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
    return _through(node)


def _through(node: ir.Node) -> Grid | None:
    """The grid of what a node reads, if what it makes is on the same one."""
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
    return int(np.max(grid.widths, initial=0))
