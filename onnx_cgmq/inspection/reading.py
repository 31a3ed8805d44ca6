"""Reads the width of one operand from types, codes and limits in the graph.

A claim of the embedded plan that these contradict is not believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.inspection.claims import (
    Claim,
    claimed_activation_widths,
    claimed_float_widths,
    claimed_granularity,
    claimed_weight_widths,
)
from onnx_cgmq.inspection.patterns import find_grid
from onnx_cgmq.inspection.patterns.grid import Grid, IntArray, is_stored, scalar

_SUFFIXES: Final = (".quantized", ".values", ".float", "_DequantizeLinear_Output", "_quantized")
_TRANSPOSED: Final = re.compile(r"\.transposed(_\d+)+$")


@dataclass(frozen=True, eq=False)
class Reading:
    """What the file says about one operand.

    Attributes:
        name: Name of the float tensor that the operand stands for.
        role: Weight (a constant) or activation.
        granularity: Whether there is one width, or one per channel or element.
        widths: Widths, int64, in a shape that broadcasts to the tensor's.
        shape: Shape of the tensor. For activations it is that of the file, with 0 for unknown
            sizes.
        stored: Type of the codes in the file; ``FLOAT`` if there are none.
        stored_bits: Bits that a weight takes in the file. If floats hold its codes, as in QONNX,
            these are the bits of the codes. Steps count where blocks have their own. 0 for an
            activation.
        note: Why the width can't be read, so that it counts as 32 bits; or empty.
    """

    name: str
    role: Role
    granularity: Granularity
    widths: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    stored: ir.DataType
    stored_bits: int
    note: str = ""


def read_operand(value: ir.Value, claims: Mapping[str, Claim], axis: int | None = None) -> Reading:
    """Reads the widths of a value that a MAC node multiplies.

    Args:
        value: The value as the node reads it.
        claims: The entries of the embedded plan by tensor name. They only say how widths may vary,
            and on which ladder they are. A width that the codes exceed is not believed.
        axis: The axis of the value that counts output channels, or rows of a table; ``None`` if
            there is none.
    """
    grid = _believed(find_grid(value), value, axis)
    name = _name(value, grid, claims)
    claim = claims.get(name, {})
    if grid is None and value.const_value is not None:
        fixed = not value.is_graph_input()  # else a caller may give other values
        array = np.asarray(value.const_value.numpy())
        widths = claimed_float_widths(claim, array, axis) if fixed else scalar(FLOAT_BITS)
        return _weight(name, value.const_value, widths, claim)
    if grid is None:
        dtype = value.dtype or ir.DataType.FLOAT
        return _activation(name, value, scalar(FLOAT_BITS), dtype, claim)
    if grid.constant:
        return _constant(name, value, grid, claim)
    widths = claimed_activation_widths(grid.widths, claim)
    return _activation(name, value, widths, grid.stored, claim, grid.note)


def _believed(grid: Grid | None, value: ir.Value, axis: int | None) -> Grid | None:
    """A grid, without the width that the file says if its steps say more than its codes."""
    if grid is None:
        return None
    shape = value.shape
    whole = math.prod(shape.numpy()) if shape is not None and shape.is_static() else math.inf
    rows = grid.source is not None and is_stored(grid.source) and not grid.constant
    if grid.steps.are_shared(math.inf if rows else whole, 0 if rows else axis):
        return grid
    note = f"nearly every value has a step or an offset of its own ({grid.steps.count:,} of them)"
    return replace(grid, widths=scalar(FLOAT_BITS), codes=None, note=note)


def tensor_name(value: ir.Value) -> str:
    """Returns the name of the float tensor that a value of a written model stands for."""
    name = value.name or ""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return _TRANSPOSED.sub("", name)


def stored_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """Finds the tensor in the file of which a constant is made: its codes, if it has any."""
    stored = stored_value(value)
    return None if stored is None else stored.const_value


def stored_value(value: ir.Value) -> ir.Value | None:
    """Finds the initializer of :func:`stored_tensor`."""
    if value.const_value is not None:
        return value
    grid = find_grid(value)
    if grid is not None and grid.constant and is_stored(grid.source):
        return grid.source
    return None


def _name(value: ir.Value, grid: Grid | None, claims: Mapping[str, Claim]) -> str:
    """Returns the name of the float tensor that an operand stands for.

    This is the name in the embedded plan, or else the name of the value that is quantized.

    Args:
        value: The operand.
        grid: The grid of the operand, if it has one.
        claims: The entries of the embedded plan by tensor name.
    """
    name = tensor_name(value)
    if grid is None or grid.source is None or name in claims or name != value.name:
        return name
    if grid.source.const_value is not None and not grid.constant:
        return name  # rows that were looked up in an embedding table
    return tensor_name(grid.source)


def _constant(name: str, value: ir.Value, grid: Grid, claim: Claim) -> Reading:
    """Reads a weight with a grid."""
    assert grid.source is not None
    tensor = grid.source.const_value
    assert tensor is not None
    widths: IntArray = grid.widths
    if claim and grid.codes is not None and not grid.source.is_graph_input():
        widths = claimed_weight_widths(grid.codes(), claim)
    in_floats = grid.stored is ir.DataType.FLOAT and grid.codes is not None
    stored = grid.widths if in_floats else None
    reading = _weight(name, tensor, widths, claim, stored, grid.note)
    return replace(reading, stored_bits=reading.stored_bits + grid.steps.bits)


def _weight(
    name: str,
    tensor: ir.TensorProtocol,
    widths: IntArray,
    claim: Claim,
    stored: IntArray | None = None,
    note: str = "",
) -> Reading:
    """Makes the reading of a weight.

    Args:
        name: Name of the weight.
        tensor: The tensor in the file.
        widths: Widths of the weight.
        claim: Its entry in the embedded plan.
        stored: Widths of codes that floats hold, or ``None``.
        note: Why the width can't be read, or empty.
    """
    shape = tuple(int(size) for size in tensor.shape.numpy())
    element_bits = scalar(int(tensor.dtype.bitwidth)) if stored is None else stored
    bits = int(np.broadcast_to(_broadcastable(element_bits, shape), shape).sum())
    widths = _broadcastable(widths, shape)
    granularity = _granularity(widths, claim)
    return Reading(name, Role.WEIGHT, granularity, widths, shape, tensor.dtype, bits, note)


def _activation(
    name: str,
    value: ir.Value,
    widths: IntArray,
    stored: ir.DataType,
    claim: Claim,
    note: str = "",
) -> Reading:
    """Makes the reading of an activation.

    Args:
        name: Name of the activation.
        value: The value that the node reads.
        widths: Widths of the activation.
        stored: Type of its codes, ``FLOAT`` without codes.
        claim: Its entry in the embedded plan.
        note: Why the width can't be read, or empty.
    """
    shape = tuple(dim if isinstance(dim, int) else 0 for dim in value.shape or ())
    widths = _broadcastable(widths, shape)
    granularity = _granularity(widths, claim)
    return Reading(name, Role.ACTIVATION, granularity, widths, shape, stored, 0, note)


def _broadcastable(widths: IntArray, shape: tuple[int, ...]) -> IntArray:
    """Returns widths that broadcast to a shape: the given ones, or else the widest of them."""
    sizes = shape[len(shape) - widths.ndim :] if widths.ndim <= len(shape) else None
    if sizes is not None and all(
        n in (1, size) for n, size in zip(widths.shape, sizes, strict=True)
    ):
        return widths
    return scalar(int(widths.max(initial=0)))


def _granularity(widths: IntArray, claim: Claim) -> Granularity:
    """Returns the granularity that a claim gives to widths, or else the one that they show."""
    if widths.ndim == 0:
        return Granularity.TENSOR
    if claim:
        return claimed_granularity(claim)
    varying = sum(size > 1 for size in widths.shape)
    return (
        (Granularity.TENSOR, Granularity.CHANNEL)[varying] if varying < 2 else Granularity.ELEMENT
    )
