"""Finds the quantizer of a value, whichever tool wrote it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import keeps_grid
from onnx_cgmq.inspection.patterns.codes import codes_grid
from onnx_cgmq.inspection.patterns.float_nodes import rounded_in_float_nodes
from onnx_cgmq.inspection.patterns.grid import ONE_STEP, Grid, Steps, is_stored, scalar
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
    return _find(value, {})


def _find(value: ir.Value, found: dict[ir.Value, Grid | None]) -> Grid | None:
    """The grid of a value; ``found`` holds what is known, for a graph may join what it parted."""
    if value not in found:
        found[value] = _look(value, found)
    return found[value]


def _look(value: ir.Value, found: dict[ir.Value, Grid | None]) -> Grid | None:
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
    return _grid_from_above(node, found)


def _grid_from_above(node: ir.Node, known: dict[ir.Value, Grid | None]) -> Grid | None:
    """Finds the grid of what a node reads, if its output lies on the same grid.

    The output of Concat has the widest grid of its inputs, and none if an input is float.
    """
    if not node.inputs or node.inputs[0] is None:
        return None
    if standard_op(node) == "Concat":
        grids = [None if value is None else _find(value, known) for value in node.inputs]
        found = [grid for grid in grids if grid is not None]
        if len(found) < len(grids):
            return None
        widest = max(_widest(grid) for grid in found)
        note = next((grid.note for grid in found if grid.note), "")
        steps = _joined([grid.steps for grid in found])
        return Grid(scalar(widest), None, False, found[0].stored, steps=steps, note=note)
    if not keeps_grid(node):
        return None
    grid = _find(node.inputs[0], known)
    if grid is None:
        return None
    others = all(value is None or is_stored(value) for value in node.inputs[1:])
    constant = grid.constant and others
    steps = grid.steps if standard_op(node) == "Identity" else replace(grid.steps, axis=None)
    return replace(grid, widths=scalar(_widest(grid)), constant=constant, codes=None, steps=steps)


def _joined(parts: Sequence[Steps]) -> Steps:
    """How steps vary over values side by side; those of activations don't matter."""
    fixed = [part for part in parts if part.elements < math.inf]
    if not fixed:
        return ONE_STEP
    return Steps(sum(part.count for part in fixed), sum(part.elements for part in fixed))


def _widest(grid: Grid) -> int:
    """Returns the widest width of a grid."""
    return int(np.max(grid.widths, initial=0))
