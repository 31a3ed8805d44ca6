"""Reads the width of one operand off the graph: types, codes and limits, never a mere claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.bits import FLOAT_BITS, Granularity, GridForm, Role, code_range
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.opspec import moves_codes, standard_op
from onnx_cgmq.inspection.constants import constant_value

_WIDTHS: Final = (2, 4, 8, 16)
_SUFFIXES: Final = (".quantized", ".values", ".float", "_DequantizeLinear_Output")


@dataclass(frozen=True, eq=False)
class Reading:
    """What the file says about one operand.

    Attributes:
        name: Name of the float tensor it stands for.
        role: Weight (constant) or activation.
        granularity: How its widths vary.
        widths: Bits, int64; broadcasts to the tensor.
        shape: Shape of the tensor (activations: as the file has it, 0 for unknown sizes).
        stored: Type of the codes in the file (``FLOAT`` if there are none).
        stored_bits: Bits that a weight takes in the file; 0 for an activation.
    """

    name: str
    role: Role
    granularity: Granularity
    widths: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    stored: ir.DataType
    stored_bits: int


def read_operand(value: ir.Value, claims: Mapping[str, Mapping[str, Any]]) -> Reading:
    """Reads the widths of a value that a MAC operator multiplies.

    Args:
        value: The value as the operator reads it.
        claims: Entries of the embedded plan by tensor name. They only say how widths may vary and
            which ladder they are on; a width that the codes exceed is not believed.
    """
    name = tensor_name(value)
    claim = claims.get(name, {})
    codes = stored_codes(value)
    if codes is not None:
        return _read_weight(name, value, codes, claim)
    constant = value.const_value
    if constant is not None:
        if constant.dtype.is_integer():
            widths = np.array(constant.dtype.bitwidth, dtype=np.int64)
        else:
            widths = _claimed_on_grid(claim, np.asarray(constant.numpy()))
        granularity = _granularity(claim) if widths.ndim else Granularity.TENSOR
        shape = tuple(int(size) for size in constant.shape.numpy())
        return Reading(
            name, Role.WEIGHT, granularity, widths, shape, constant.dtype, _bits(constant)
        )
    widths, stored = _activation_widths(value)
    granularity = _granularity(claim) if widths.ndim else Granularity.TENSOR
    shape = _sizes(value.shape)
    return Reading(name, Role.ACTIVATION, granularity, widths, shape, stored, 0)


def tensor_name(value: ir.Value) -> str:
    """Name of the float tensor that a written value stands for."""
    name = value.name or ""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def stored_codes(value: ir.Value) -> ir.TensorProtocol | None:
    """The integer initializer behind a value.

    It is one behind ``[Cast ->] DequantizeLinear`` or ``Cast -> Mul`` by a constant.
    """
    node = value.producer()
    if node is None or standard_op(node) not in ("DequantizeLinear", "Mul"):
        return None
    if standard_op(node) == "Mul" and (
        node.inputs[1] is None or constant_value(node.inputs[1]) is None
    ):
        return None
    codes = node.inputs[0]
    cast = codes.producer() if codes is not None else None
    if cast is not None and standard_op(cast) == "Cast":
        codes = cast.inputs[0]
    return codes.const_value if codes is not None else None


def _read_weight(
    name: str, value: ir.Value, tensor: ir.TensorProtocol, claim: Mapping[str, Any]
) -> Reading:
    node = value.producer()
    assert node is not None
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    zero = np.zeros(()) if zero_point is None else constant_value(zero_point)
    if zero is None:
        raise ModelError(f"node {node.name!r}: its zero point is not a constant")
    axis = node.attributes.get("axis")
    axis_number = 1 if axis is None else axis.as_int()
    if standard_op(node) == "Mul" and node.inputs[1] is not None and node.inputs[1].shape:
        # A step for each channel: the axis along which it varies.
        axis_number = int(np.argmax(node.inputs[1].shape.numpy()))
    codes = tensor.numpy().astype(np.int64)
    if zero.ndim == 1 and zero.size > 1:
        zero = zero.reshape([-1 if i == axis_number else 1 for i in range(codes.ndim)])
    codes = codes - zero.astype(np.int64)
    granularity = _granularity(claim)
    if granularity is Granularity.ELEMENT:
        widths = _nested_widths(codes, claim)
    elif granularity is Granularity.CHANNEL:
        others = tuple(i for i in range(codes.ndim) if i != axis_number % codes.ndim)
        widths = _needed(np.abs(codes).max(axis=others, keepdims=True), claim)
    else:
        widths = _needed(np.abs(codes).max(), claim)
    return Reading(name, Role.WEIGHT, granularity, widths, codes.shape, tensor.dtype, _bits(tensor))


def _granularity(claim: Mapping[str, Any]) -> Granularity:
    return Granularity(claim.get("granularity", Granularity.TENSOR))


def _bits(tensor: ir.TensorProtocol) -> int:
    """Bits of a tensor in the file."""
    return int(tensor.size) * int(tensor.dtype.bitwidth)


def _sizes(shape: ir.Shape | None) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else 0 for dim in shape or ())


def _needed(largest: npt.NDArray[np.int64], claim: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Narrowest symmetric grids that hold the largest magnitudes, or what is claimed if wider."""
    widths = np.full(np.shape(largest), 16, dtype=np.int64)
    for width in reversed(_WIDTHS):
        widths[largest <= code_range(width, GridForm.SYMMETRIC)[1]] = width
    pruned = (largest == 0) & (0 in claim.get("ladder", ()))
    floor = np.asarray(claim.get("widths", 2), dtype=np.int64)
    if floor.shape not in ((), widths.shape):
        floor = np.array(2)
    return np.where(pruned, floor * (floor > 2), np.maximum(widths, floor)).astype(np.int64)


def _nested_widths(codes: npt.NDArray[np.int64], claim: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Narrowest grid of the ladder that has each element's value, on the nested grids."""
    largest = int(np.abs(codes).max(initial=0))
    grid = next(w for w in _WIDTHS if largest <= code_range(w, GridForm.SYMMETRIC)[1])
    claimed = claim.get("grid_width", grid)
    grid = claimed if claimed in _WIDTHS and claimed >= grid else grid
    ladder = claim.get("ladder", _WIDTHS)
    widths = np.full(codes.shape, grid, dtype=np.int64)
    for width in sorted((w for w in ladder if 0 < w < grid), reverse=True):
        factor = (2**grid - 1) // (2**width - 1)
        fits = np.abs(codes) <= factor * code_range(width, GridForm.SYMMETRIC)[1]
        widths[fits & (codes % factor == 0)] = width
    if 0 in ladder:
        widths[codes == 0] = 0
    return widths


def _claimed_on_grid(claim: Mapping[str, Any], values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Widths of a float initializer: 32, but for entries that do lie on the grid they claim."""
    float_bits = np.array(FLOAT_BITS, dtype=np.int64)
    if not {"step", "widths"} <= set(claim):
        return float_bits
    claimed, steps = claim["widths"].astype(np.int64), claim["step"]
    try:
        widths = np.broadcast_to(claimed, values.shape)
        step = np.broadcast_to(steps, values.shape)
    except ValueError:
        return float_bits
    codes = np.round(values / np.where(step > 0, step, np.float32(1)))
    on_grid = np.where(widths == 0, values == 0, codes.astype(np.float32) * step == values)
    for width in _WIDTHS:
        largest = code_range(width, GridForm.SYMMETRIC)[1]
        on_grid &= (widths != width) | (np.abs(codes) <= largest)
    honest = on_grid | (widths == FLOAT_BITS)
    if claimed.shape == values.shape:
        return np.where(honest, widths, FLOAT_BITS).astype(np.int64)
    return claimed if bool(honest.all()) else float_bits


def _activation_widths(value: ir.Value) -> tuple[npt.NDArray[np.int64], ir.DataType]:
    """Widths of an activation and the type of its codes (``FLOAT`` for float nodes)."""
    node = value.producer()
    if node is not None and standard_op(node) == "DequantizeLinear" and node.inputs[0] is not None:
        return _code_width(node.inputs[0])
    if value.dtype is not None and value.dtype.is_integer():
        return _code_width(value)
    by_entry = _float_quantizer_widths(value)
    if by_entry is not None:
        return by_entry, ir.DataType.FLOAT
    return np.array(FLOAT_BITS, dtype=np.int64), value.dtype or ir.DataType.FLOAT


def _code_width(codes: ir.Value) -> tuple[npt.NDArray[np.int64], ir.DataType]:
    """Width of integer codes: of their type, or less if a ``Clip`` on their way limits them."""
    stored = codes.dtype or ir.DataType.UINT8
    width = stored.bitwidth
    value: ir.Value | None = codes
    while value is not None and (node := value.producer()) is not None:
        if standard_op(node) == "Clip":
            ends = [constant_value(end) for end in node.inputs[1:] if end is not None]
            if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
                width = min(width, _span_width(np.int64(ends[1]) - np.int64(ends[0])))
        elif not moves_codes(node):
            break
        value = node.inputs[0]
    return np.array(width, dtype=np.int64), stored


def _span_width(span: np.int64) -> int:
    """Bits of an unsigned grid with ``span + 1`` codes."""
    return next((w for w in (0, *_WIDTHS) if span <= 2**w - 1), FLOAT_BITS)


def _float_quantizer_widths(value: ir.Value) -> npt.NDArray[np.int64] | None:
    """Widths of ``[Where <-] Mul <- Min <- Max <- Round <- Div`` with constants, or ``None``.

    The step of ``Div`` and ``Mul`` must be the same, else the values are on no grid.
    """
    node = value.producer()
    passes: npt.NDArray[Any] | None = None
    if node is not None and standard_op(node) == "Where" and node.inputs[0] is not None:
        passes = constant_value(node.inputs[0])
        if passes is None or node.inputs[2] is None:
            return None
        node = node.inputs[2].producer()
    constants: list[npt.NDArray[Any]] = []
    for op_type in ("Mul", "Min", "Max", "Round", "Div"):
        if node is None or standard_op(node) != op_type or node.inputs[0] is None:
            return None
        if op_type != "Round":
            constant = constant_value(node.inputs[1]) if node.inputs[1] is not None else None
            if constant is None:
                return None
            constants.append(constant)
        node = node.inputs[0].producer()
    multiplier, largest, smallest, divisor = constants
    if not np.array_equal(multiplier, divisor):
        return None
    span = np.asarray(largest - smallest)
    shape = np.broadcast_shapes(
        multiplier.shape, span.shape, () if passes is None else passes.shape
    )
    widths = np.full(span.shape, FLOAT_BITS, dtype=np.int64)
    for width in reversed((0, *_WIDTHS)):
        widths[span <= 2**width - 1] = width
    widths = np.broadcast_to(widths, shape)
    if passes is not None:
        widths = np.where(passes, FLOAT_BITS, widths)
    return widths.astype(np.int64)
