"""Recognizes integer codes that become floats: by DequantizeLinear, or by ``Cast`` and ``Mul``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.nodes import int_attribute, standard_op
from onnx_cgmq.inspection.patterns.codes import QUANTIZE_DOMAINS, code_type, codes_grid
from onnx_cgmq.inspection.patterns.grid import Grid, IntArray, steps_of


def dequantize_linear(node: ir.Node) -> Grid | None:
    """Finds the grid of the output of DequantizeLinear; ``None`` for any other node.

    Its codes may come from an integer initializer, from QuantizeLinear (of an activation, or of a
    float initializer), or from an operator that computes with codes. ``Clip``, ``Cast`` and movers
    may lie in between (QCDQ).
    """
    if node.op_type != "DequantizeLinear" or node.domain not in QUANTIZE_DOMAINS:
        return None
    codes = node.inputs[0]
    if codes is None:
        return None
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    axis = int_attribute(node, "axis", 1)
    steps = steps_of(codes, *node.inputs[1:3], axis=axis)
    return replace(_grid_of_codes(codes, zero_point, axis), steps=steps)


def cast_and_multiply(node: ir.Node) -> Grid | None:
    """Finds the grid of ``Mul <- [Sub | Relu] <- Cast <- codes``; ``None`` for any other node.

    Step and zero point must be constant. The form ``ort`` writes weights and activations of float
    kernels in this way.
    """
    if standard_op(node) != "Mul":
        return None
    for value, step in (node.inputs[:2], node.inputs[1::-1]):
        cast, offset = _before_offset(value)
        if cast is None or standard_op(cast) != "Cast" or constant_value(step) is None:
            continue
        codes = cast.inputs[0]
        dtype = code_type(codes) if codes is not None else None
        if codes is not None and dtype is not None and dtype.is_integer():
            steps = steps_of(codes, step, offset, axis=None)
            return replace(_grid_of_codes(codes, offset, 0), steps=steps)
    return None


def _before_offset(value: ir.Value | None) -> tuple[ir.Node | None, ir.Value | None]:
    """Looks through the Sub of an offset, or a Relu, that makes a value.

    Returns:
        The node above it, and the offset, or ``None`` where there is none.
    """
    node = value.producer() if value is not None else None
    if node is None or standard_op(node) not in ("Sub", "Relu") or node.inputs[0] is None:
        return node, None
    offset = node.inputs[1] if standard_op(node) == "Sub" else None
    if offset is not None and constant_value(offset) is None:
        return None, None
    return node.inputs[0].producer(), offset


def _grid_of_codes(codes: ir.Value, zero_point: ir.Value | None, axis: int) -> Grid:
    """Finds the grid of codes with a zero point.

    Args:
        codes: The codes.
        zero_point: The zero point, or ``None`` for 0.
        axis: The axis along which the zero point varies, if it does.
    """
    zero = constant_value(zero_point)
    grid = codes_grid(codes, _zero_point_ends(zero) if zero_point is not None else (0, 0))
    if not grid.constant or (zero_point is not None and zero is None):
        return grid

    def compute_codes() -> IntArray:
        stored = constant_value(codes)
        if stored is None:
            raise ValueError("not computed")
        values, zeros = stored.astype(np.int64), np.zeros((), np.int64)
        if zero is not None:
            zeros = zero.astype(np.int64)
        if zeros.ndim == 1 and zeros.size > 1:
            zeros = zeros.reshape(
                [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
            )
        return np.asarray(values - zeros)

    shape = () if codes.shape is None else tuple(codes.shape)
    fits = (
        zero is None
        or zero.size < 2
        or (zero.ndim == 1 and bool(shape) and shape[axis % len(shape)] == zero.size)
    )
    known = fits and constant_value(codes) is not None
    return replace(grid, codes=compute_codes) if known else grid


def _zero_point_ends(zero: npt.NDArray[Any] | None) -> tuple[int, int] | None:
    """Returns the smallest and the largest zero point; ``None`` if they are unknown."""
    if zero is None or not zero.size:
        return None
    points = zero.astype(np.int64)
    return int(points.min()), int(points.max())
