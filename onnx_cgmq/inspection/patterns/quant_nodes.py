"""Recognizes quantizers of QONNX: ``Quant``, ``BipolarQuant``, ``Trunc`` and ``FloatQuant``.

``Quant`` computes ``y = (clip(round(x / scale + zero_point)) - zero_point) * scale``. Its width is
an input (https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.nodes import called, int_attribute, standard_op
from onnx_cgmq.graph.qonnx import is_quant
from onnx_cgmq.inspection.patterns.grid import (
    Grid,
    IntArray,
    is_stored,
    range_bits,
    scalar,
    steps_of,
)

_WIDTH_INPUT = {"Quant": 3, "IntQuant": 3, "Trunc": 4}
"""Index of the input that holds the width of the output, by operator."""


def quant_node(node: ir.Node) -> Grid | None:
    """Finds the grid of a quantizer of QONNX, Brevitas or FINN; ``None`` for any other node."""
    if node.domain not in QUANT_DOMAINS or not node.inputs:
        return None
    source = node.inputs[0]
    if node.op_type == "BipolarQuant":
        steps = steps_of(source, *node.inputs[1:2], axis=None)
        return Grid(scalar(1), source, is_stored(source), ir.DataType.FLOAT, steps=steps)
    if node.op_type == "FloatQuant":
        return _grid(node, _float_width(node))
    index = _WIDTH_INPUT.get(node.op_type)
    return None if index is None else _grid(node, _input(node, index))


def clipped_quant(node: ir.Node) -> Grid | None:
    """Finds the grid of ``Clip <- Quant`` with ends on the grid; ``None`` for any other node.

    The form ``qonnx`` writes affine grids in this way.
    """
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if standard_op(node) != "Clip" or source is None or not is_quant(source):
        return None
    grid = quant_node(source)
    scale, ends = _input(source, 1), [_input(node, index) for index in (1, 2)]
    if grid is None or scale is None or scale.size != 1 or any(end is None for end in ends):
        return None
    codes = [np.round(np.asarray(end) / scale) for end in ends]
    if any(np.any(c * scale != end) for c, end in zip(codes, ends, strict=True)):
        return None
    low, high = (int(code.reshape(())) for code in codes)
    widths = np.minimum(grid.widths, range_bits(low, high))
    return replace(grid, widths=widths, codes=None)


def _grid(node: ir.Node, width: np.ndarray | None) -> Grid:
    """Makes the grid of a quantizer with a width; with a note if the width is unknown."""
    source = node.inputs[0]
    constant = is_stored(source)
    if width is None or not np.all(width > 0):
        note = f"the bit width of {called(node)} is not a constant above 0"
        return Grid(scalar(FLOAT_BITS), source, constant, ir.DataType.FLOAT, note=note)
    widths = np.minimum(np.ceil(width), FLOAT_BITS).astype(np.int64)
    if widths.size == 1 or np.all(widths == widths.reshape(-1)[0]):
        widths = scalar(int(widths.reshape(-1)[0]))
    codes = _codes(node, widths) if constant and node.op_type != "FloatQuant" else None
    parameters = node.inputs[1:2] if node.op_type == "FloatQuant" else node.inputs[1:3]
    steps = steps_of(source, *parameters, axis=None)
    return Grid(widths, source, constant, ir.DataType.FLOAT, codes, steps)


def _codes(node: ir.Node, widths: IntArray) -> Callable[[], IntArray] | None:
    """Returns a function that computes the codes of a constant, less the zero point.

    Returns ``None`` if the values are unknown, or if the node rounds in another way than
    QuantizeLinear.
    """
    rounding = node.attributes.get("rounding_mode")
    mode = "ROUND" if rounding is None else rounding.as_string()
    values, scale, zero = (_input(node, index) for index in range(3))
    if mode not in ("ROUND", "HALF_EVEN") or values is None or scale is None or zero is None:
        return None
    signed, narrow = int_attribute(node, "signed", 1), int_attribute(node, "narrow", 0)

    def compute() -> IntArray:
        high = 2.0 ** (widths - signed) - 1 - (narrow and not signed)
        low = -(2.0 ** (widths - 1)) + narrow if signed else np.zeros(())
        codes = np.clip(np.round(values / scale + zero), low, high) - zero
        return np.asarray(codes.astype(np.int64))

    return compute


def _float_width(node: ir.Node) -> np.ndarray | None:
    """Returns the width of FloatQuant: a sign, the exponent and the mantissa."""
    exponent, mantissa = _input(node, 2), _input(node, 3)
    return None if exponent is None or mantissa is None else 1 + exponent + mantissa


def _input(node: ir.Node, index: int) -> np.ndarray | None:
    """Returns the value of an input that is constant, else ``None``."""
    return constant_value(node.inputs[index]) if index < len(node.inputs) else None
