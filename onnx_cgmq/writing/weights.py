"""Writes weights as packed integers, and biases as INT32 or floats."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.summed_pairs import SumOrder
from onnx_cgmq.graph.integer_types import pack
from onnx_cgmq.writing.activations import UNSIGNED_OFFSET
from onnx_cgmq.writing.codes import (
    FloatArray,
    accumulator_codes,
    grid_codes,
    may_saturate,
    quantized_values,
)
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.storage import WeightTypes


@dataclass(frozen=True)
class StoredWeight:
    """A weight as integer codes in the file, which all its readers share.

    Attributes:
        spec: The quantizer of the weight.
        codes: The initializer.
        step: Step of the codes, float32: ``()``, or ``[C]`` with a step for each channel; with one
            for each block as :class:`~onnx_cgmq.writing.codes.GridCodes` has it.
        zero_point: The code that stands for 0.
    """

    spec: QuantizerSpec
    codes: ir.Value
    step: FloatArray
    zero_point: int


def store_weight(
    emit: NodeWriter,
    spec: QuantizerSpec,
    plan: TensorPlan,
    values: FloatArray,
    types: WeightTypes,
    sums: Collection[tuple[SumOrder, int]],
) -> StoredWeight:
    """Writes the codes of a weight, packed at its true size.

    8-bit codes of which a pair could saturate the integer kernels of x86 processors without VNNI
    are written as UINT8 with the zero point 128. The values are the same, exact on every processor,
    and onnxruntime fuses the same integer kernels. With UINT8, Conv takes 1.4 times as long there,
    and Gemm as long as before.

    Args:
        emit: Writes nodes before the quantizer.
        spec: The quantizer of the weight.
        plan: Its plan, in which no element is float.
        values: Its learned float values, float32, in its shape.
        types: The types in which it may be stored.
        sums: For each integer kernel that adds products of the weight in pairs, the order of its
            sums, and the largest UINT8 code that it multiplies the weight with.
    """
    grid = grid_codes(spec, plan, values)
    codes, data_type, zero_point = grid.codes, types.narrowest(grid.width), 0
    if may_saturate(codes, sums):
        codes, data_type, zero_point = codes + UNSIGNED_OFFSET, ir.DataType.UINT8, UNSIGNED_OFFSET
    codes = codes.reshape(spec.view_shape)
    stored = emit.constant("codes", pack(codes, data_type, f"{emit.base}.codes"))
    return StoredWeight(spec, stored, grid.scale, zero_point)


def write_integer_weight(
    emit: NodeWriter, weight: StoredWeight, axes: tuple[int, ...] = ()
) -> ir.Value:
    """Writes a weight of at most 8 bits for integer kernels.

    This is a ``Cast`` of packed codes to INT8, a ``Transpose`` of the codes if the kernels read
    the weight transposed (onnxruntime folds both when it loads the file), and a DequantizeLinear.

    Args:
        emit: Writes nodes before the quantizer.
        weight: The codes of the weight.
        axes: For every axis that the kernels read, the axis of the weight; empty if these are the
            same.

    Returns:
        The float value that nodes read.
    """
    codes, axis = write_kernel_codes(emit, weight, axes), weight.spec.axis
    assert codes.dtype is not None
    if axes and axis is not None:
        axis = axes.index(axis)
    along = {"axis": axis} if weight.step.ndim else {}
    zero_point = np.full(weight.step.shape, weight.zero_point, codes.dtype.numpy())
    inputs = [
        codes,
        emit.constant("scale", weight.step),
        emit.constant("zero_point", zero_point),
    ]
    floats = ir.DataType.FLOAT
    return emit.node("DequantizeLinear", inputs, "quantized", floats, codes.shape, along)


def write_kernel_codes(
    emit: NodeWriter, weight: StoredWeight, axes: tuple[int, ...] = ()
) -> ir.Value:
    """Writes the codes of a weight as integer kernels read them; arguments as above.

    This is the ``Cast`` and the ``Transpose`` of :func:`write_integer_weight`.
    """
    codes = weight.codes
    data_type = codes.dtype
    assert data_type is not None
    if data_type in (ir.DataType.INT2, ir.DataType.INT4):
        data_type = ir.DataType.INT8
        attributes = {"to": int(data_type)}
        codes = emit.node("Cast", [codes], "codes8", data_type, codes.shape, attributes)
    if axes:
        shape = ir.Shape([weight.spec.shape[i] for i in axes])
        codes = emit.node("Transpose", [codes], "codes", data_type, shape, {"perm": axes})
    return codes


def write_float_weight(emit: NodeWriter, weight: StoredWeight) -> ir.Value:
    """Writes a weight of at most 16 bits for float kernels.

    This is a ``Cast`` of the codes to FLOAT, a ``Sub`` of the zero point if that is not 0, and a
    ``Mul`` by the step, which onnxruntime folds into a float initializer when it loads the file. A
    DequantizeLinear would run at every inference. And it would let onnxruntime fuse MatMul into
    MatMulNBits, which by default rounds a float activation to 8 bits. If blocks have steps of their
    own, each is a row of the stored codes, and a ``Reshape`` follows.

    Args:
        emit: Writes nodes before the quantizer.
        weight: The codes of the weight.

    Returns:
        The float value that nodes read.
    """
    spec, to = weight.spec, ir.DataType.FLOAT
    shape = ir.Shape(spec.view_shape)
    value = emit.node("Cast", [weight.codes], "float_codes", to, shape, {"to": int(to)})
    if weight.zero_point:
        offset = emit.constant("offset", np.float32(weight.zero_point))
        value = emit.node("Sub", [value, offset], "centered", to, shape)
    step = emit.constant("scale", weight.step.reshape(spec.range_item_shape))
    if spec.block is None:
        return emit.node("Mul", [value, step], "quantized", to, shape)
    value = emit.node("Mul", [value, step], "in_blocks", to, shape)
    whole = emit.constant("shape", np.array(spec.shape, np.int64))
    return emit.node("Reshape", [value, whole], "quantized", to, ir.Shape(spec.shape))


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
