"""The form ``qonnx``: ``Quant`` nodes of QONNX, for FPGA flows (FINN, hls4ml).

* A weight is a float initializer whose values lie on its grid, and a signed, narrow ``Quant`` of
  the grid's width. QONNX takes only one width for a node. So if widths differ by channel or
  element, the width is that of the widest grid, as in the other forms. If channels have ranges of
  their own, the scale is a tensor.
* An activation is one ``Quant`` without a zero point, because FINN, hls4ml and the cost analysis of
  QONNX take only this: an unsigned one, or a signed one with as many codes as the plan's grid. An
  affine grid with any other zero point is a ``Quant`` of one bit more, and a ``Clip`` to the ends
  of the grid. (QONNX adds a zero point before it rounds, so values halfway between two codes would
  get another code.)
* A bias is a float initializer with the values that an integer kernel adds to its accumulator.
* A tensor of 32 bits has no ``Quant``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import Role, code_range
from onnx_cgmq.contract.identifiers import QUANT_DOMAIN
from onnx_cgmq.gating.predicted_kernels import KernelChoice
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.qonnx import QUANT_OP, QUANT_VERSION
from onnx_cgmq.writing.activations import write_float_activation
from onnx_cgmq.writing.codes import FloatArray
from onnx_cgmq.writing.gated_tensors import GatedTensor, GatedTensors
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.weights import write_float_bias


def write_qonnx(tensors: GatedTensors) -> Mapping[str, KernelChoice]:
    """Replaces every gated quantizer by the form ``qonnx``, in place.

    Returns:
        No kernels, because this form is not for onnxruntime.
    """
    tensors.write_biases(write_float_bias)
    tensors.write(Role.WEIGHT, _write_weight)
    tensors.write(Role.ACTIVATION, _write_activation)
    _write_kernel_shapes(tensors.graph)
    tensors.graph.opset_imports[QUANT_DOMAIN] = QUANT_VERSION
    return {}


def _write_weight(emit: NodeWriter, tensor: GatedTensor) -> ir.Value:
    """Writes a weight as values on its grid and a ``Quant``, or as floats."""
    grid = tensor.codes()
    if grid is None:
        return tensor.float_value(emit)
    scale = grid.scale.reshape(tensor.spec.range_item_shape)
    on_grid = emit.constant("values", grid.codes.astype(np.float32) * scale)
    return _quant(emit, on_grid, scale, grid.width, "quantized", signed=True, narrow=True)


def _write_activation(emit: NodeWriter, tensor: GatedTensor) -> ir.Value:
    """Writes an activation as a ``Quant``, perhaps with a ``Clip``, or in float nodes."""
    plan, x = tensor.plan, tensor.source
    width, zero_point = plan.grid_width, plan.zero_point
    if plan.is_float or not plan.is_uniform:
        return write_float_activation(emit, plan, x)
    if plan.form.is_symmetric:
        return _quant(emit, x, plan.step, width, "quantized", signed=True, narrow=True)
    if not zero_point.any():
        return _quant(emit, x, plan.step, width, "quantized", signed=False, narrow=False)
    if (zero_point == 2 ** (width - 1)).all():
        return _quant(emit, x, plan.step, width, "quantized", signed=True, narrow=False)
    if zero_point.size > 1:  # a Clip has the same limits for all channels
        return write_float_activation(emit, plan, x)
    rounded = _quant(emit, x, plan.step, width + 1, "rounded", signed=True, narrow=True)
    ends = [
        emit.constant(suffix, np.float32(code - zero_point) * plan.step)
        for suffix, code in zip(("least", "most"), code_range(width, plan.form), strict=True)
    ]
    return emit.node("Clip", [rounded, *ends], "quantized", ir.DataType.FLOAT, x.shape)


def _quant(
    emit: NodeWriter,
    x: ir.Value,
    scale: FloatArray,
    width: int,
    suffix: str,
    *,
    signed: bool,
    narrow: bool,
) -> ir.Value:
    """Writes a ``Quant`` node.

    Args:
        emit: Writes nodes before the quantizer.
        x: The value that it rounds.
        scale: The step, float32.
        width: The width.
        suffix: Suffix of the name of its output.
        signed: Whether codes may be negative.
        narrow: Whether the smallest code (if signed) or the largest is left out.

    Returns:
        The rounded value.
    """
    inputs = [
        x,
        emit.constant("scale", scale),
        emit.constant("zero_point", np.float32(0)),
        emit.constant("bit_width", np.float32(width)),
    ]
    attributes = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": "ROUND"}
    return emit.node(
        QUANT_OP, inputs, suffix, ir.DataType.FLOAT, x.shape, attributes, domain=QUANT_DOMAIN
    )


def _write_kernel_shapes(graph: ir.Graph) -> None:
    """Writes the attribute ``kernel_shape`` of all convolutions, in place.

    ONNX allows a model to leave it out, but QONNX reads it.
    """
    for node in graph.all_nodes():
        weight = node.inputs[1] if standard_op(node) in ("Conv", "ConvTranspose") else None
        if (
            weight is not None
            and weight.shape is not None
            and "kernel_shape" not in node.attributes
        ):
            sizes = [int(size) for size in weight.shape.numpy()[2:]]
            node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", sizes)
