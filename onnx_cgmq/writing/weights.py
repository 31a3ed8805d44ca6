"""Writes weights as packed integers, and biases as INT32 or floats."""

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

    This is a packed INT2, INT4 or INT8 initializer, a ``Cast`` to INT8 (which onnxruntime folds
    when it loads the file) and a DequantizeLinear.

    8-bit codes that could saturate the kernels of x86 processors without VNNI are written as UINT8
    with the zero point 128. The values are the same, exact on every processor, and onnxruntime
    fuses the same integer kernels. With UINT8, Conv takes 1.4 times as long there, and Gemm as long
    as before.

    Args:
        emit: Writes nodes before the quantizer.
        spec: The quantizer of the weight.
        plan: Its plan.
        values: Its learned float values, float32, in its shape.
        types: The types in which it may be stored.
        largest_activation: The largest UINT8 code that the weight is multiplied with.

    Returns:
        The float value that nodes read.
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

    A weight of at most 16 bits becomes its codes, a ``Cast`` to FLOAT and a ``Mul`` by the step,
    which onnxruntime folds into a float initializer when it loads the file. A DequantizeLinear
    would run at every inference. And it would let onnxruntime fuse MatMul into MatMulNBits, which
    by default rounds a float activation to 8 bits.

    A weight with any float element becomes a float initializer.

    Args:
        emit: Writes nodes before the quantizer.
        spec: The quantizer of the weight.
        plan: Its plan.
        values: Its learned float values, float32, in its shape.
        types: The types in which it may be stored.

    Returns:
        The float value that nodes read.
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
    """Writes codes so that DequantizeLinear reads them as INT8, or as UINT8 if INT8 may saturate.

    The arguments are those of :func:`write_integer_weight`; ``grid`` has the codes.
    """
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
    """Writes a bias: as INT32 for an integer kernel, as floats for a float kernel.

    In both cases it is rounded to its own grid first.

    Args:
        emit: Writes nodes before the quantizer.
        plan: The plan of the bias.
        values: Its learned float values, float32, ``[C]`` or a shape that broadcasts to it.
        step: One unit of the accumulator, ``()`` or ``[C]``: the float32 product of the steps of
            both operands. ``None`` for a float kernel.

    Returns:
        The float value that nodes read.
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
    """Writes a bias as a float initializer.

    Args:
        emit: Writes nodes before the quantizer.
        plan: The plan of the bias.
        values: Its learned float values, float32, ``[C]`` or a shape that broadcasts to it.
        step: One unit of an accumulator, ``()`` or ``[C]``, to write exactly what an integer kernel
            would add. ``None`` leaves the bias on its own grid.

    Returns:
        The float value that nodes read.
    """
    bias = quantized_values(plan, values)
    if step is not None:
        bias = accumulator_codes(bias, step).astype(np.float32) * step
    return emit.constant("values", bias)
