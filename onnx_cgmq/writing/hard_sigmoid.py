"""HardSigmoid between integer kernels: an Add, whose codes saturate by themselves.

``clip(alpha x + beta, 0, 1)`` of ``x = s (c - z)`` is ``clip((alpha s) (c - z) + beta, 0, 1)``: the
codes of ``x`` read with another scale, plus a constant, between limits that the codes of the result
have anyhow. onnxruntime has an integer Add, and no other kernel for it.
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
    """A UINT8 grid, and the node that reads or makes it.

    Attributes:
        node: QuantizeLinear or DequantizeLinear.
        step: Its scale.
        zero_point: Its zero point.
    """

    node: ir.Node
    step: np.float32
    zero_point: int

    @classmethod
    def of(cls, node: ir.Node | None, op_type: str) -> _Grid | None:
        """The grid of a node of a type, if it is UINT8 with one constant scale."""
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
        """Codes that QuantizeLinear makes of values."""
        codes = np.round(values / self.step) + np.float32(self.zero_point)
        return np.asarray(np.clip(codes, 0, 255), dtype=np.float32)


def write_hard_sigmoids(graph: ir.Graph) -> None:
    """Writes every HardSigmoid from codes to codes as an Add, in place.

    One stays as it is if any code of its input would lead to another one: rounding may differ in
    the last bit of a float.
    """
    for node in list(graph):
        if standard_op(node) != "HardSigmoid" or node.inputs[0] is None:
            continue
        above = _Grid.of(node.inputs[0].producer(), "DequantizeLinear")
        reader = only_reader(node.outputs[0])
        below = None if reader is None else _Grid.of(reader, "QuantizeLinear")
        if above is not None and below is not None:
            _write(node, above, below)


def _write(node: ir.Node, above: _Grid, below: _Grid) -> None:
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
    shifts = [scaled, _number(emit, beta)]
    added = emit.node("Add", shifts, "shifted", ir.DataType.FLOAT, shape)
    below.node.replace_input_with(0, added)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    if (limits != (0, 255)).any():
        _limit(below.node, limits)


def _number(emit: NodeWriter, number: np.float32) -> ir.Value:
    """A number as a code, exactly: one step above or below zero."""
    sign = 0 if number < 0 else 1
    inputs = [
        emit.constant("offset_code", np.uint8(sign)),
        emit.constant("offset_scale", np.abs(number)),
        emit.constant("offset_zero_point", np.uint8(1 - sign)),
    ]
    return emit.node("DequantizeLinear", inputs, "offset", ir.DataType.FLOAT, ir.Shape([]))


def _limit(quantize: ir.Node, limits: npt.NDArray[np.float32]) -> None:
    """Clips the codes that a node makes."""
    codes = quantize.outputs[0]
    readers = tuple(codes.uses())
    emit = NodeWriter(readers[0].node, str(codes.name))
    ends = [emit.constant(n, np.uint8(c)) for n, c in zip(("low", "high"), limits, strict=True)]
    limited = emit.node("Clip", [codes, *ends], "limited", ir.DataType.UINT8, codes.shape)
    for reader, index in readers:
        reader.replace_input_with(index, limited)
