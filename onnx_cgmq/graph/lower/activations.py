"""Activations as integer codes where standard quantizers can say it, else in float nodes."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.bits import FLOAT_BITS, code_range
from onnx_cgmq.graph.gating.integer_path import is_clamp
from onnx_cgmq.graph.lower.emit import Emitter
from onnx_cgmq.graph.lower.movers import movers_above, read_codes
from onnx_cgmq.graph.opspec import standard_op
from onnx_cgmq.plan import TensorPlan

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


def write_integer_activation(emit: Emitter, plan: TensorPlan, x: ir.Value) -> ir.Value:
    """Writes the quantizer of an activation with one width of at most 8 bits for integer kernels.

    QuantizeLinear (UINT8), below 8 bits ``Clip`` of the codes to ``2**b - 1``, DequantizeLinear.
    QuantizeLinear moves up to where the tensor is produced, so that integer codes flow and
    onnxruntime fuses the producer too. Relu and Clip on the way become limits of the codes, which
    is the same since grids are monotone, and stand in no fusion's way.

    Args:
        emit: Where to write.
        plan: The plan of the activation.
        x: The float activation.

    Returns:
        The quantized-dequantized value.
    """
    code_type = ir.DataType.UINT8
    grid = uint8_grid(plan)
    scale = emit.constant("scale", np.float32(plan.step))
    zero_point = emit.constant("zero_point", np.uint8(grid.zero_point))

    path = movers_above(x)
    source = path[-1].source if path else x
    code_min, code_max = grid.smallest, grid.largest
    for clamp in _clamps_above(source):
        smallest, largest = _limits(clamp, grid, plan.step)
        code_min, code_max = max(code_min, smallest), min(code_max, largest)
        assert clamp.inputs[0] is not None
        source = clamp.inputs[0]
    suffix = "source_codes" if path else "codes"
    above = Emitter(path[-1].node, emit.base) if path else emit
    codes = above.node(
        "QuantizeLinear", [source, scale, zero_point], suffix, code_type, source.shape
    )
    for mover in reversed(path):
        read_codes(mover.node, codes, zero_point)
        codes = mover.output
        codes.type = ir.TensorType(code_type)
        codes.name = f"{codes.name}.codes"
    if (code_min, code_max) != (0, _LARGEST_UINT8):
        limits = [
            emit.constant("code_min", np.uint8(code_min)),
            emit.constant("code_max", np.uint8(code_max)),
        ]
        codes = emit.node("Clip", [codes, *limits], "clipped", code_type, x.shape)
    inputs = [codes, scale, zero_point]
    return emit.node("DequantizeLinear", inputs, "quantized", ir.DataType.FLOAT, x.shape)


def _clamps_above(value: ir.Value) -> list[ir.Node]:
    """Relu and Clip nodes that make a value for one reader alone, nearest first."""
    clamps: list[ir.Node] = []
    node = value.producer()
    while node is not None and is_clamp(node) and len(value.uses()) == 1:
        clamps.append(node)
        assert node.inputs[0] is not None
        value = node.inputs[0]
        node = value.producer()
    return clamps


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


def write_float_activation(emit: Emitter, plan: TensorPlan, x: ir.Value) -> ir.Value:
    """Writes the quantizer of an activation for float kernels: any widths, any granularity.

    ``Div, Round, Max, Min, Mul``, and ``Where`` for float entries: exactly the gated values. A
    DequantizeLinear would say the same of one width, but in front of a float kernel it makes
    onnxruntime quantize the float weights of that kernel to 8 bits, unasked.

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
