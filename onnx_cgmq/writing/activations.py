"""Writes activations: as integer codes where standard quantizers can, otherwise in float nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, GridForm, code_range
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.gating.code_path import CodePath
from onnx_cgmq.gating.movers import read_codes
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.uses import only_element_reader, shape_uses
from onnx_cgmq.writing.node_writer import NodeWriter

UNSIGNED_OFFSET: Final = 128
"""Zero point of a symmetric grid of at most 8 bits that is written as UINT8."""

_LARGEST_UINT8: Final = 255


class Uint8Grid(NamedTuple):
    """The codes of an activation as they are written in UINT8."""

    zero_point: int
    """The code that stands for 0."""
    smallest: int
    """The smallest code of the grid."""
    largest: int
    """The largest code of the grid."""


def uint8_grid(plan: TensorPlan) -> Uint8Grid:
    """Returns the UINT8 codes of an activation that has one width of at most 8 bits."""
    offset = _offset(plan.form)
    smallest, _ = code_range(plan.grid_width, plan.form)
    largest = largest_uint8_code(plan.form, plan.grid_width)
    return Uint8Grid(int(plan.zero_point) + offset, smallest + offset, largest)


def largest_uint8_code(form: GridForm, width: int) -> int:
    """Returns the largest UINT8 code of an activation on a grid of at most 8 bits."""
    return code_range(width, form)[1] + _offset(form)


def _offset(form: GridForm) -> int:
    """Returns what is added to the codes of a grid to make them UINT8."""
    return UNSIGNED_OFFSET if form.is_symmetric else 0


@dataclass(frozen=True)
class ActivationCodes:
    """An activation as UINT8 codes.

    Attributes:
        value: The codes.
        scale: The step of the codes.
        zero_point: The zero point of the codes.
    """

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value


def write_codes(emit: NodeWriter, plan: TensorPlan, x: ir.Value) -> ActivationCodes:
    """Writes the codes of an activation that has one width of at most 8 bits.

    These are a QuantizeLinear to UINT8 and, unless all codes of UINT8 are allowed, a ``Clip`` of
    the codes. QuantizeLinear moves up the :class:`~onnx_cgmq.gating.code_path.CodePath`, so that
    the movers on it read codes and onnxruntime fuses the node above them too:

    * Clamps become limits of the codes. The values are the same, because rounding to a grid is
      monotone, and no clamp is left that could prevent a fusion.
    * Factors of movers become part of the scale that QuantizeLinear divides by.
    * Nodes that only read the shape of a value on the path read the shape of its codes. If they
      read the float value, onnxruntime would not fuse the node that makes it.

    The nodes of the graph must be sorted afterwards, because a node that reads a shape may come
    before the QuantizeLinear.

    Args:
        emit: Writes nodes before the quantizer.
        plan: The plan of the activation.
        x: The float activation.

    Returns:
        The codes, with the scale and zero point that turn them into values of ``x``.
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
        smallest, largest = _clamp_limits(clamp, grid, step)
        code_min, code_max = max(code_min, smallest), min(code_max, largest)
    suffix = "source_codes" if path.movers else "codes"
    above = NodeWriter(path.movers[-1].node, emit.base) if path.movers else emit
    inputs = [path.source, source_scale, zero_point]
    # No node makes an input of the graph, and its shape is there before its codes.
    alone = only_element_reader(path.source) is not None and not path.source.is_graph_input()
    codes = above.node("QuantizeLinear", inputs, suffix, code_type, path.source.shape)
    floats = [clamp.outputs[0] for clamp in path.clamps]
    for value in [path.source, *floats] if alone else floats:
        read_shape_of(value, codes)
    for mover in reversed(path.movers):
        if mover.factor is not None:
            read_shape_of(mover.output, codes)
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


def read_shape_of(value: ir.Value, codes: ir.Value) -> None:
    """Makes the nodes that only read the shape of a value read codes of the same shape."""
    for node, index in shape_uses(value):
        node.replace_input_with(index, codes)


def dequantize(emit: NodeWriter, codes: ActivationCodes) -> ir.Value:
    """Writes the DequantizeLinear of codes, which onnxruntime fuses into an integer kernel."""
    inputs = [codes.value, codes.scale, codes.zero_point]
    floats = ir.DataType.FLOAT
    return emit.node("DequantizeLinear", inputs, "quantized", floats, codes.value.shape)


def dequantize_for_float_kernel(
    emit: NodeWriter, plan: TensorPlan, codes: ActivationCodes
) -> ir.Value:
    """Writes the value of codes for a float MAC: ``Cast, Sub, Mul``, as DequantizeLinear computes.

    In front of a float kernel, a DequantizeLinear would make onnxruntime quantize the float weights
    of that kernel to 8 bits, which the plan does not want.

    If the zero point is 0, a Relu is written instead of Sub. It changes no value. Without it
    onnxruntime would make the step a factor of MatMul, and can crash on the Cast that is then left
    beside MatMul.

    Args:
        emit: Writes nodes before the quantizer.
        plan: The plan of the activation.
        codes: Its codes.

    Returns:
        The float value.
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


def _clamp_limits(
    clamp: ir.Node, grid: Uint8Grid, step: npt.NDArray[np.float32]
) -> tuple[int, int]:
    """Returns the smallest and largest code that a clamp leaves, as QuantizeLinear rounds its ends.

    Args:
        clamp: A Relu, or a Clip with constant ends.
        grid: The codes of the activation.
        step: The step of the value that the clamp makes.
    """
    if standard_op(clamp) == "Relu":
        return grid.zero_point, grid.largest
    ends = [grid.smallest, grid.largest]
    for index, value in enumerate(clamp.inputs[1:]):
        if value is not None and value.const_value is not None:
            end = np.float32(value.const_value.numpy().reshape(())) / np.float32(step)
            ends[index] = int(np.clip(np.round(end) + grid.zero_point, grid.smallest, grid.largest))
    return ends[0], ends[1]


def write_float_activation(emit: NodeWriter, plan: TensorPlan, x: ir.Value) -> ir.Value:
    """Writes the quantizer of an activation in float nodes, for any widths and any granularity.

    These are ``Div, Round, Max, Min, Mul``, and a ``Where`` if some entries are float. They compute
    exactly the values of the gated model.

    Args:
        emit: Writes nodes before the quantizer.
        plan: The plan of the activation.
        x: The float activation.

    Returns:
        The rounded value, or ``x`` itself if no entry is quantized.
    """
    if plan.is_float:
        return x
    widths, step, limits = plan.widths, plan.step, code_limits(plan)
    passes = widths == FLOAT_BITS
    safe = np.where(step > 0, step, np.float32(1)).astype(np.float32)
    scale = emit.small_constant("scale", safe)
    value = x
    for op_type, other, suffix in (
        ("Div", scale, "scaled"),
        ("Round", None, "rounded"),
        ("Max", emit.small_constant("code_min", limits[0]), "raised"),
        ("Min", emit.small_constant("code_max", limits[1]), "clipped"),
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
    """Returns the smallest and the largest code of every entry, less the zero point.

    Args:
        plan: The plan of the tensor.

    Returns:
        Two arrays in the shape of the widths, float32; 0 for entries of 0 and 32 bits.
    """
    limits = [np.zeros(plan.widths.shape, dtype=np.float32) for _ in range(2)]
    for width in np.unique(plan.widths):
        here = plan.widths == width
        ends = (0, 0) if width == FLOAT_BITS else code_range(int(width), plan.form)
        for limit, end in zip(limits, ends, strict=True):
            limit[here] = end if ends == (0, 0) else (end - plan.zero_point)[here]
    return limits[0], limits[1]
