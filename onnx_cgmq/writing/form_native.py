"""The form ``native``: quantizers in types of the learned widths, for compilers that take them.

* A weight is a packed INT2, INT4, INT8 or INT16 initializer, which DequantizeLinear reads. If the
  widths differ by channel or element, the type is that of the widest grid. If channels have ranges
  of their own, the scale is a vector.
* An activation is written as QuantizeLinear and DequantizeLinear in UINT2, UINT4, UINT8 or UINT16,
  per axis if channels have ranges of their own. A symmetric grid is written in INT types instead,
  behind a Clip, because it does not have the smallest code of its type.
* A bias is INT32, in units of the accumulator, if both operands have at most 8 bits.
* A weight or bias with an element of 32 bits is a float initializer.
* A standard quantizer has one type for all elements. So an activation whose widths differ by
  channel or element is written in float nodes, which give the values of its grids, as in the form
  ``ort``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import Role, code_range
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.gating.predicted_kernels import KernelChoice
from onnx_cgmq.graph.integer_types import grid_type, pack
from onnx_cgmq.writing.activations import write_float_activation
from onnx_cgmq.writing.gated_tensors import GatedTensor, GatedTensors
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.weights import write_bias


def write_native(tensors: GatedTensors) -> Mapping[str, KernelChoice]:
    """Replaces every gated quantizer by the form ``native``, in place.

    Returns:
        No kernels, because this form is not for onnxruntime.
    """
    tensors.write_biases(write_bias)
    tensors.write(Role.WEIGHT, write_native_weight)
    tensors.write(Role.ACTIVATION, _write_activation)
    return {}


def write_native_weight(emit: NodeWriter, tensor: GatedTensor) -> ir.Value:
    """Writes a weight as packed codes and DequantizeLinear, or as floats."""
    grid = tensor.codes()
    if grid is None:
        return tensor.float_value(emit)
    data_type = grid_type(grid.width, signed=True)
    inputs = [
        emit.constant("codes", pack(grid.codes, data_type, f"{emit.base}.codes")),
        emit.constant("scale", grid.scale),
        _zero_point(emit, np.zeros(grid.scale.shape, dtype=np.int64), data_type),
    ]
    axis = {"axis": tensor.spec.axis} if grid.scale.ndim else {}
    shape = ir.Shape(tensor.spec.shape)
    return emit.node("DequantizeLinear", inputs, "quantized", ir.DataType.FLOAT, shape, axis)


def _write_activation(emit: NodeWriter, tensor: GatedTensor) -> ir.Value:
    """Writes an activation as QuantizeLinear and DequantizeLinear, or in float nodes."""
    plan, x = tensor.plan, tensor.source
    if plan.is_float or not plan.is_uniform:
        return write_float_activation(emit, plan, x)
    data_type = grid_type(plan.grid_width, signed=plan.form.is_symmetric)
    per_axis = plan.step.size > 1
    shape = (-1,) if per_axis else ()
    parameters = [
        emit.constant("scale", plan.step.reshape(shape)),
        _zero_point(emit, plan.zero_point.reshape(shape), data_type),
    ]
    axis = {"axis": tensor.spec.axis} if per_axis else {}
    source = _clipped(emit, plan, x) if plan.form.is_symmetric else x
    codes = emit.node("QuantizeLinear", [source, *parameters], "codes", data_type, x.shape, axis)
    inputs = [codes, *parameters]
    return emit.node("DequantizeLinear", inputs, "quantized", ir.DataType.FLOAT, x.shape, axis)


def _zero_point(emit: NodeWriter, array: np.ndarray, data_type: ir.DataType) -> ir.Value:
    return emit.constant("zero_point", pack(array, data_type, f"{emit.base}.zero_point"))


def _clipped(emit: NodeWriter, plan: TensorPlan, x: ir.Value) -> ir.Value:
    """Clips ``x`` to the values of the smallest and the largest code."""
    for op_type, suffix, code in zip(
        ("Max", "Min"),
        ("raised", "clipped"),
        code_range(plan.grid_width, plan.form),
        strict=True,
    ):
        limit = emit.constant(f"{suffix}_to", np.float32(code) * plan.step)
        x = emit.node(op_type, [x, limit], suffix, ir.DataType.FLOAT, x.shape)
    return x
