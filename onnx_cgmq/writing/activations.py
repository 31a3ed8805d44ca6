"""Activations as integer codes where standard quantizers can say it, else in float nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, code_range
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.gating.code_path import CodePath
from onnx_cgmq.gating.movers import read_codes
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.writing.node_writer import NodeWriter

UNSIGNED_OFFSET: Final = 128
"""Zero point of a symmetric grid of up to 8 bits that is written as UINT8."""

_LARGEST_UINT8: Final = 255


class Uint8Grid(NamedTuple):
    """The codes of an activation in UINT8."""

    zero_point: int
    smallest: int
    largest: int


def uint8_grid(plan: TensorPlan) -> Uint8Grid:
    """The codes that an activation with one width of at most 8 bits has in UINT8."""
    offset = UNSIGNED_OFFSET if plan.form.is_symmetric else 0
    smallest, largest = code_range(plan.grid_width, plan.form)
    return Uint8Grid(int(plan.zero_point) + offset, smallest + offset, largest + offset)


@dataclass(frozen=True)
class ActivationCodes:
    """An activation as UINT8 codes.

    Attributes:
        value: The codes.
        scale: Their step.
        zero_point: Their zero point.
    """

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value


def write_codes(emit: NodeWriter, plan: TensorPlan, x: ir.Value) -> ActivationCodes:
    """Quantizes an activation with one width of at most 8 bits.

    QuantizeLinear (UINT8), and below 8 bits ``Clip`` of the codes to ``2**b - 1``. QuantizeLinear
    moves up to where the tensor is produced, so that integer codes flow and onnxruntime fuses the
    producer too. Relu and Clip on the way become limits of the codes, which is the same since grids
    are monotone, and stand in no fusion's way; factors become part of the scale.

    Args:
        emit: Where to write.
        plan: The plan of the activation.
        x: The float activation.
    """
    code_type = ir.DataType.UINT8
    grid = uint8_grid(plan)
    scale = emit.constant("scale", np.float32(plan.step))
    zero_point = emit.constant("zero_point", np.uint8(grid.zero_point))
    path = CodePath.above(x)
    step = np.asarray(plan.step / np.float32(path.factor), dtype=np.float32)
    source_scale = scale if path.factor == 1 else emit.constant("source_scale", step)
    code_min, code_max = grid.smallest, grid.largest
    for clamp in path.clamps:
        smallest, largest = _limits(clamp, grid, step)
        code_min, code_max = max(code_min, smallest), min(code_max, largest)
    suffix = "source_codes" if path.movers else "codes"
    above = NodeWriter(path.movers[-1].node, emit.base) if path.movers else emit
    inputs = [path.source, source_scale, zero_point]
    codes = above.node("QuantizeLinear", inputs, suffix, code_type, path.source.shape)
    for mover in reversed(path.movers):
        if mover.factor is not None:
            continue
        read_codes(mover.node, codes, zero_point)
        codes = mover.output
        codes.name = f"{codes.name}.codes"
    if (code_min, code_max) != (0, _LARGEST_UINT8):
        limits = [
            emit.constant("code_min", np.uint8(code_min)),
            emit.constant("code_max", np.uint8(code_max)),
        ]
        codes = emit.node("Clip", [codes, *limits], "clipped", code_type, x.shape)
    return ActivationCodes(codes, scale, zero_point)


def dequantize(emit: NodeWriter, codes: ActivationCodes) -> ir.Value:
    """The value of codes for integer kernels: DequantizeLinear."""
    inputs = [codes.value, codes.scale, codes.zero_point]
    floats = ir.DataType.FLOAT
    return emit.node("DequantizeLinear", inputs, "quantized", floats, codes.value.shape)


def dequantize_for_float_kernel(
    emit: NodeWriter, plan: TensorPlan, codes: ActivationCodes
) -> ir.Value:
    """The value of codes for a float MAC: ``Cast, Sub, Mul``, the arithmetic of DequantizeLinear.

    A DequantizeLinear in front of a float kernel makes onnxruntime quantize the float weights of
    that kernel to 8 bits, unasked. Without an offset a Relu takes its place, which changes nothing:
    onnxruntime makes the step a factor of MatMul, and can crash on a Cast that is left beside it.
    """
    floats, shape = ir.DataType.FLOAT, codes.value.shape
    value = emit.node("Cast", [codes.value], "float_codes", floats, shape, {"to": int(floats)})
    zero_point = uint8_grid(plan).zero_point
    if zero_point != 0:
        offset = emit.constant("offset", np.float32(zero_point))
        value = emit.node("Sub", [value, offset], "centered", floats, shape)
    else:
        value = emit.node("Relu", [value], "centered", floats, shape)
    return emit.node("Mul", [value, codes.scale], "quantized", floats, shape)


def _limits(clamp: ir.Node, grid: Uint8Grid, step: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Codes of the two ends of a clamp, as QuantizeLinear rounds them."""
    if standard_op(clamp) == "Relu":
        return grid.zero_point, grid.largest
    ends = [grid.smallest, grid.largest]
    for index, value in enumerate(clamp.inputs[1:]):
        if value is not None and value.const_value is not None:
            end = np.float32(value.const_value.numpy().reshape(())) / np.float32(step)
            ends[index] = int(np.clip(np.round(end) + grid.zero_point, grid.smallest, grid.largest))
    return ends[0], ends[1]


def write_float_activation(emit: NodeWriter, plan: TensorPlan, x: ir.Value) -> ir.Value:
    """Writes the quantizer of an activation that has no 8-bit codes: any widths, any granularity.

    ``Div, Round, Max, Min, Mul``, and ``Where`` for float entries: exactly the gated values.

    Args:
        emit: Where to write.
        plan: The plan of the activation.
        x: The float activation.

    Returns:
        The quantized-dequantized value; ``x`` itself if no entry is quantized.
    """
    if plan.is_float:
        return x
    widths, step, limits = plan.widths, plan.step, code_limits(plan)
    passes = widths == FLOAT_BITS
    safe = np.where(step > 0, step, np.float32(1)).astype(np.float32)
    scale = emit.table("scale", safe)
    value = x
    for op_type, other, suffix in (
        ("Div", scale, "scaled"),
        ("Round", None, "rounded"),
        ("Max", emit.table("code_min", limits[0]), "raised"),
        ("Min", emit.table("code_max", limits[1]), "clipped"),
        ("Mul", scale, "stepped" if passes.any() else "quantized"),
    ):
        inputs = [value] if other is None else [value, other]
        value = emit.node(op_type, inputs, suffix, ir.DataType.FLOAT, x.shape)
    if passes.any():
        mask = emit.constant("is_float", passes)
        value = emit.node("Where", [mask, x, value], "quantized", ir.DataType.FLOAT, x.shape)
    return value


def code_limits(
    plan: TensorPlan,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Smallest and largest code less the zero point, of every entry; 0 where there is no grid."""
    limits = [np.zeros(plan.widths.shape, dtype=np.float32) for _ in range(2)]
    for width in np.unique(plan.widths):
        here = plan.widths == width
        ends = (0, 0) if width == FLOAT_BITS else code_range(int(width), plan.form)
        for limit, end in zip(limits, ends, strict=True):
            limit[here] = end if ends == (0, 0) else (end - plan.zero_point)[here]
    return limits[0], limits[1]
