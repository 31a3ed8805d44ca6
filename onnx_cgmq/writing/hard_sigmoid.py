"""Writes HardSigmoid between integer kernels as an Add of codes.

HardSigmoid computes ``clip(alpha x + beta, 0, 1)``. With ``x = s (c - z)`` (code ``c``, step ``s``,
zero point ``z``) that is ``clip((alpha s) (c - z) + beta, 0, 1)``: the same codes at another step,
plus a constant. The codes of the result need no clip, because they saturate at 0 and 1 by
themselves. onnxruntime has an integer kernel for Add, but none for HardSigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.nodes import float_attribute, standard_op
from onnx_cgmq.graph.uses import only_reader
from onnx_cgmq.writing.node_writer import NodeWriter

_CODES: Final = np.arange(256, dtype=np.float32)


@dataclass(frozen=True)
class _Grid:
    """The UINT8 grid of a QuantizeLinear or DequantizeLinear.

    Attributes:
        node: The QuantizeLinear or DequantizeLinear node.
        step: The step of the grid.
        zero_point: The zero point of the grid.
    """

    node: ir.Node
    step: np.float32
    zero_point: int

    @classmethod
    def of(cls, node: ir.Node | None, op_type: str) -> _Grid | None:
        """Reads the grid of a node; ``None`` if it is of another type, or no UINT8 grid.

        Args:
            node: The node, if there is one.
            op_type: The type that it should have: QuantizeLinear or DequantizeLinear.
        """
        if node is None or standard_op(node) != op_type or len(node.inputs) != 3:
            return None
        scale, zero_point = (None if v is None else v.const_value for v in node.inputs[1:])
        if scale is None or zero_point is None or scale.size != 1:
            return None
        if zero_point.dtype is not ir.DataType.UINT8:
            return None
        step = np.float32(scale.numpy().reshape(()))
        return cls(node, step, int(zero_point.numpy().reshape(())))

    def codes(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Computes the codes that QuantizeLinear makes of values."""
        codes = np.round(values / self.step) + np.float32(self.zero_point)
        return np.asarray(np.clip(codes, 0, 255), dtype=np.float32)


def write_hard_sigmoids(graph: ir.Graph) -> None:
    """Replaces every HardSigmoid between DequantizeLinear and QuantizeLinear by an Add, in place.

    A HardSigmoid stays if the Add would make another code for any code of its input. That can
    happen, because the last bits of the floats in between may differ.
    """
    for node in list(graph):
        if standard_op(node) != "HardSigmoid" or node.inputs[0] is None:
            continue
        above = _Grid.of(node.inputs[0].producer(), "DequantizeLinear")
        reader = only_reader(node.outputs[0])
        below = None if reader is None else _Grid.of(reader, "QuantizeLinear")
        if above is not None and below is not None:
            _write_as_add(node, above, below)


def _write_as_add(node: ir.Node, above: _Grid, below: _Grid) -> None:
    """Replaces a HardSigmoid by an Add if all 256 codes of its input keep their results.

    Args:
        node: The HardSigmoid.
        above: The grid of its input.
        below: The grid of its output.
    """
    alpha = np.float32(float_attribute(node, "alpha", 0.2))
    beta = np.float32(float_attribute(node, "beta", 0.5))
    step = alpha * above.step
    shifted = _CODES - np.float32(above.zero_point)
    limits = below.codes(np.array([0, 1], np.float32))
    wanted = below.codes(np.clip(alpha * (shifted * above.step) + beta, 0, 1, dtype=np.float32))
    saturated = below.codes(shifted * step + beta)
    if step <= 0 or beta == 0 or (np.clip(saturated, *limits) != wanted).any():
        return
    codes, _, zero_point = above.node.inputs
    assert codes is not None
    assert zero_point is not None
    emit = NodeWriter(node, str(node.outputs[0].name))
    shape = node.outputs[0].shape
    inputs = [codes, emit.constant("slope", step), zero_point]
    scaled = emit.node("DequantizeLinear", inputs, "scaled", ir.DataType.FLOAT, shape)
    shifts = [scaled, _number_as_code(emit, beta)]
    added = emit.node("Add", shifts, "shifted", ir.DataType.FLOAT, shape)
    below.node.replace_input_with(0, added)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    if (limits != (0, 255)).any():
        _clip_codes(below.node, limits)


def _number_as_code(emit: NodeWriter, number: np.float32) -> ir.Value:
    """Writes a number exactly: as the code one above or below zero, at the step ``abs(number)``."""
    sign = 0 if number < 0 else 1
    inputs = [
        emit.constant("offset_code", np.uint8(sign)),
        emit.constant("offset_scale", np.abs(number)),
        emit.constant("offset_zero_point", np.uint8(1 - sign)),
    ]
    return emit.node("DequantizeLinear", inputs, "offset", ir.DataType.FLOAT, ir.Shape([]))


def _clip_codes(quantize: ir.Node, limits: npt.NDArray[np.float32]) -> None:
    """Clips the codes that a QuantizeLinear makes to a smallest and a largest code."""
    codes = quantize.outputs[0]
    readers = tuple(codes.uses())
    emit = NodeWriter(readers[0].node, str(codes.name))
    ends = [emit.constant(n, np.uint8(c)) for n, c in zip(("low", "high"), limits, strict=True)]
    limited = emit.node("Clip", [codes, *ends], "limited", ir.DataType.UINT8, codes.shape)
    for reader, index in readers:
        reader.replace_input_with(index, limited)
