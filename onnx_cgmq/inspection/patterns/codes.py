"""Reads the width of integer codes from their type, and from limits if these are narrower."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.nodes import called, int_attribute, standard_op
from onnx_cgmq.graph.operators import moves_codes
from onnx_cgmq.inspection.patterns.grid import Grid, is_stored, range_bits, scalar

QUANTIZE_DOMAINS = ("", "ai.onnx", "com.microsoft")
"""Domains of QuantizeLinear and DequantizeLinear; onnxruntime has its own for 4 and 16 bits."""


@dataclass(frozen=True, eq=False)
class Codes:
    """Integer codes, and where they come from.

    Attributes:
        low: The smallest code that is possible.
        high: The largest code that is possible.
        source: The value that QuantizeLinear reads, or the initializer that holds the codes;
            ``None`` if another operator makes them.
        constant: Whether the file fixes the codes.
    """

    low: int
    high: int
    source: ir.Value | None
    constant: bool


def codes_grid(value: ir.Value, zero_points: tuple[int, int] | None = (0, 0)) -> Grid:
    """Finds the grid of codes, as an operator reads them.

    Args:
        value: The codes.
        zero_points: The smallest and the largest zero point of the codes. ``None`` if they are
            unknown, so that limits of the codes say nothing about the width.
    """
    dtype = code_type(value)
    if dtype is None:
        note = f"the type of the codes {value.name!r} is unknown"
        return Grid(scalar(32), None, is_stored(value), ir.DataType.UNDEFINED, note=note)
    if not dtype.is_integer():  # floats of 8 bits and fewer
        return Grid(scalar(dtype.bitwidth), _initializer_above(value), is_stored(value), dtype)
    codes = _codes(value, dtype)
    bits = int(dtype.bitwidth)
    if zero_points is not None:
        bits = min(bits, range_bits(codes.low - zero_points[1], codes.high - zero_points[0]))
    return Grid(scalar(bits), codes.source, codes.constant, dtype)


def code_type(value: ir.Value) -> ir.DataType | None:
    """Finds the type of codes: from the file, or else from the nodes that make them."""
    if value.const_value is not None:
        return value.const_value.dtype
    if value.dtype is not None and value.dtype is not ir.DataType.UNDEFINED:
        return value.dtype
    node = value.producer()
    if node is None:
        return None
    if standard_op(node) == "Cast":
        return cast_type(node)
    if is_quantize(node):
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            return code_type(node.inputs[2])
        output = node.attributes.get("output_dtype")
        return ir.DataType(output.as_int()) if output else ir.DataType.UINT8
    if (standard_op(node) == "Clip" or moves_codes(node)) and node.inputs[0] is not None:
        return code_type(node.inputs[0])
    return None


def cast_type(node: ir.Node) -> ir.DataType:
    """The type that a Cast makes.

    Raises:
        ModelError: There is no such type.
    """
    to = int_attribute(node, "to", 0)
    try:
        return ir.DataType(to)
    except ValueError:
        raise ModelError(f"{called(node)}: there is no type {to}; export the model again") from None


def is_quantize(node: ir.Node) -> bool:
    """Says whether a node is QuantizeLinear."""
    return node.op_type == "QuantizeLinear" and node.domain in QUANTIZE_DOMAINS


def _codes(value: ir.Value, dtype: ir.DataType) -> Codes:
    """Finds which codes are possible, from the nodes that make a value of a type."""
    low, high = type_range(dtype)
    node = value.producer()
    if node is None or not node.inputs or node.inputs[0] is None:
        return Codes(low, high, value if is_stored(value) else None, is_stored(value))
    above, operator = node.inputs[0], standard_op(node)
    if is_quantize(node):
        return Codes(low, high, above, is_stored(above))
    if operator == "Clip" or moves_codes(node):
        inner = _codes(above, dtype)
        others = all(constant_value(v) is not None for v in node.inputs[1:] if v is not None)
        if operator == "Clip":
            low, high = _limits(node)
            low, high = max(low, inner.low), min(high, inner.high)
        else:
            low, high = inner.low, inner.high
        return Codes(low, max(low, high), inner.source, inner.constant and others)
    if operator == "Cast":
        from_type = code_type(above)
        if from_type is not None and from_type.is_integer():
            inner = _codes(above, from_type)
            if low <= inner.low and inner.high <= high:
                return inner
            return Codes(low, high, inner.source, inner.constant)
    return Codes(low, high, None, False)


def _limits(node: ir.Node) -> tuple[int, int]:
    """Returns the ends of a Clip of integers; an end that is no constant limits nothing."""
    ends = [-(2**63), 2**63]
    for index, value in enumerate(node.inputs[1:3]):
        end = constant_value(value)
        if end is not None and end.size == 1:
            ends[index] = int(end.reshape(()))
    return ends[0], ends[1]


def type_range(dtype: ir.DataType) -> tuple[int, int]:
    """Returns the smallest and the largest number of an integer type."""
    bits = dtype.bitwidth
    if dtype.name.startswith("U"):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _initializer_above(value: ir.Value) -> ir.Value | None:
    """Returns the initializer of which Cast, Clip and movers make codes, if there is one."""
    node = value.producer()
    while node is not None and (standard_op(node) in ("Cast", "Clip") or moves_codes(node)):
        if node.inputs[0] is None:
            return None
        value = node.inputs[0]
        node = value.producer()
    return value if is_stored(value) else None
