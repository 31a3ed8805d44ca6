"""Weights as packed integers, biases as INT32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.graph.integer_types import pack
from onnx_cgmq.writing.activations import UNSIGNED_OFFSET
from onnx_cgmq.writing.codes import (
    FloatArray,
    GridCodes,
    accumulator_codes,
    grid_codes,
    may_saturate,
    quantized_values,
)
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.storage import WeightTypes


def write_integer_weight(
    emit: NodeWriter,
    spec: QuantizerSpec,
    plan: TensorPlan,
    values: FloatArray,
    types: WeightTypes,
    largest_activation: int,
) -> ir.Value:
    """Writes a weight of at most 8 bits for integer kernels, at its true size.

    A packed INT2, INT4 or INT8 initializer, ``Cast`` to INT8 (folded at load), DequantizeLinear.
    8-bit codes that could saturate the kernels of x86 processors without VNNI are written as UINT8
    with zero point 128: the same values, exact on every processor, and fused to the same integer
    kernels (Conv takes 1.4 times as long there, Gemm the same).

    Args:
        emit: Where to write.
        spec: The quantizer.
        plan: Its plan.
        values: Learned float values, shape of the tensor.
        types: Types that it may be stored in.
        largest_activation: Largest UINT8 code that the weight is multiplied with.

    Returns:
        The float value that operators read.
    """
    grid = grid_codes(spec, plan, values)
    axis = {"axis": spec.axis} if grid.scale.ndim else {}
    read = _integer_codes(emit, grid, types, largest_activation)
    assert read.dtype is not None
    zero_point = UNSIGNED_OFFSET if read.dtype is ir.DataType.UINT8 else 0
    inputs = [
        read,
        emit.constant("scale", grid.scale),
        emit.constant("zero_point", np.full(grid.scale.shape, zero_point, read.dtype.numpy())),
    ]
    shape = ir.Shape(spec.shape)
    return emit.node("DequantizeLinear", inputs, "quantized", ir.DataType.FLOAT, shape, axis)


def write_float_weight(
    emit: NodeWriter, spec: QuantizerSpec, plan: TensorPlan, values: FloatArray, types: WeightTypes
) -> ir.Value:
    """Writes a weight for float kernels, at its true size.

    Up to 16 bits: codes, ``Cast`` to FLOAT and ``Mul`` by the step, which onnxruntime folds into a
    float initializer at load. DequantizeLinear would run anew every time, and invite onnxruntime to
    fuse MatMul into MatMulNBits, which by default rounds a float activation to 8 bits. With any
    float entry: a float initializer.

    Returns:
        The float value that operators read.
    """
    if plan.grid_width == FLOAT_BITS:
        return emit.constant("values", quantized_values(plan, values))
    grid = grid_codes(spec, plan, values)
    packed = pack(grid.codes, types.narrowest(grid.width), f"{emit.base}.codes")
    stored = emit.constant("codes", packed)
    shape, to = ir.Shape(spec.shape), ir.DataType.FLOAT
    codes = emit.node("Cast", [stored], "float_codes", to, shape, {"to": int(to)})
    step = emit.constant("scale", grid.scale.reshape(spec.range_item_shape))
    return emit.node("Mul", [codes, step], "quantized", to, shape)


def _integer_codes(
    emit: NodeWriter, grid: GridCodes, types: WeightTypes, largest_activation: int
) -> ir.Value:
    """The codes in the type that DequantizeLinear reads: INT8 or UINT8."""
    codes, data_type = grid.codes, types.narrowest(grid.width)
    if may_saturate(codes, largest_activation):
        codes, data_type = codes + UNSIGNED_OFFSET, ir.DataType.UINT8
    stored = emit.constant("codes", pack(codes, data_type, f"{emit.base}.codes"))
    if data_type not in (ir.DataType.INT2, ir.DataType.INT4):
        return stored
    to = ir.DataType.INT8
    return emit.node("Cast", [stored], "codes8", to, stored.shape, {"to": int(to)})


def write_bias(
    emit: NodeWriter, plan: TensorPlan, values: FloatArray, step: FloatArray | None
) -> ir.Value:
    """Writes a bias: on its own grid first, then as INT32 where an integer kernel adds it.

    Args:
        emit: Where to write.
        plan: Its plan.
        values: Learned float values; ``[C]`` or broadcasts to it.
        step: Step of the accumulator, ``()`` or ``[C]``: the float32 product of the steps of both
            operands; ``None`` for a float kernel.

    Returns:
        The float value that the operator reads.
    """
    if step is None:
        return write_float_bias(emit, plan, values, step)
    codes = accumulator_codes(quantized_values(plan, values), step)
    inputs = [
        emit.constant("codes", codes),
        emit.constant("scale", step),
        emit.constant("zero_point", np.zeros(step.shape, dtype=np.int32)),
    ]
    axis = {"axis": codes.ndim - 1} if step.ndim else {}
    shape = ir.Shape(codes.shape)
    return emit.node("DequantizeLinear", inputs, "quantized", ir.DataType.FLOAT, shape, axis)


def write_float_bias(
    emit: NodeWriter, plan: TensorPlan, values: FloatArray, step: FloatArray | None
) -> ir.Value:
    """Writes a bias in floats: where there is a step, what an integer accumulator would add.

    Arguments as for :func:`write_bias`.
    """
    bias = quantized_values(plan, values)
    if step is not None:
        bias = accumulator_codes(bias, step).astype(np.float32) * step
    return emit.constant("values", bias)
