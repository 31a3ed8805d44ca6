"""Grid: what the nodes above a value show about the grid that it lies on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import moves_codes

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """How many steps and offsets a file has for values that it fixes.

    A step of its own makes any number of any code, so a width says something only of values that
    share their step.

    Attributes:
        count: How many there are; infinite if unknown.
        elements: How many values share them; infinite if these are not of the file.
        axis: The only axis of the values along which they vary; ``None`` if there is not one.
        bits: Bits that the file holds of those that vary along several axes, as those of blocks do.
    """

    count: float = 1
    elements: float = math.inf
    axis: int | None = None
    bits: int = 0

    def are_shared(self, elements: float, axis: int | None) -> bool:
        """Whether a width says how many numbers the values can be.

        Args:
            elements: Elements that are read of them; infinite if unknown.
            axis: The axis that counts output channels, if any: each may have a step of its own,
                for it multiplies what an integer kernel added up.
        """
        if self.count <= 1 or (self.axis is not None and self.axis == axis):
            return True
        return min(self.elements, elements) >= _SHARED_BY * self.count


ONE_STEP: Final = Steps()
_SHARED_BY: Final = 16
"""Values that must share a step: the smallest blocks that kernels have. With 15 zeros beside each
value, one could have it for itself all the same, but then these are counted."""


def steps_of(source: ir.Value | None, *parameters: ir.Value | None, axis: int | None) -> Steps:
    """How steps and offsets vary over the elements of a value that the file fixes.

    Args:
        source: What is quantized, or its codes.
        parameters: Scale, zero point; ``None`` for one that is left out.
        axis: The axis along which parameters with one axis vary; ``None`` if they broadcast.
    """
    if source is None or not is_fixed(source):
        return ONE_STEP
    stored = [_before_expand(parameter) for parameter in parameters if parameter is not None]
    shape, shapes = _shape(source), [_shape(parameter) for parameter in stored]
    if shape is None or None in shapes:
        return Steps(math.inf, 1)
    varying: set[int] = set()
    count = 1
    for own in filter(None, shapes):
        count = max(count, math.prod(own))
        if axis is not None and len(own) == 1:
            varying |= {axis % max(1, len(shape))} if own[0] > 1 else set()
        else:
            before = len(shape) - len(own)
            varying |= {before + i for i, size in enumerate(own) if size > 1}
    only = min(varying) if len(varying) == 1 else -1
    by_axis = 0 <= only < len(shape) and count == shape[only]
    bits = 0 if by_axis or count == 1 else sum(map(_bits, stored))
    return Steps(count, math.prod(shape), only if by_axis else None, bits)


def _before_expand(parameter: ir.Value) -> ir.Value:
    """The value that an Expand repeats, which has all that differs, if there is one."""
    node = parameter.producer()
    repeats = node is not None and standard_op(node) == "Expand" and node.inputs[0] is not None
    source = node.inputs[0] if node is not None and repeats else None
    return parameter if source is None else source


def _bits(parameter: ir.Value) -> int:
    """The bits of a scale or zero point of known shape; as floats if its type is unknown."""
    stored = parameter.const_value
    dtype = parameter.dtype if stored is None else stored.dtype
    return math.prod(_shape(parameter) or ()) * int((dtype or ir.DataType.FLOAT).bitwidth)


def is_fixed(value: ir.Value) -> bool:
    """Whether a value, or the table whose rows it is, depends on no input of the graph."""
    node = value.producer()
    while node is not None and (moves_codes(node) or standard_op(node) in ("Cast", "Clip")):
        if node.inputs[0] is None:
            return False
        value = node.inputs[0]
        node = value.producer()
    seen, above = {value}, [value]
    while above:
        value = above.pop()
        node = value.producer()
        if node is None:
            if value.const_value is None:
                return False
            continue
        for read in node.inputs:
            if read is not None and read not in seen:
                seen.add(read)
                above.append(read)
    return True


def _shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape of a value; of the whole table where it is rows that the data choose."""
    node = value.producer()
    if node is not None and node.op_type == "Gather" and len(node.inputs) > 1:
        table, rows = node.inputs[:2]
        if table is not None and (rows is None or rows.const_value is None):
            return _shape(table)
    if value.const_value is not None:
        return tuple(int(size) for size in value.const_value.shape.numpy())
    if value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy())


@dataclass(frozen=True, eq=False)
class Grid:
    """What a quantizer says about the values that it makes, however it is written.

    Attributes:
        widths: Widths, int64, in a shape that broadcasts to the value's.
        source: The float tensor that is quantized, or the initializer that holds the codes;
            ``None`` if there is neither.
        constant: Whether the file fixes the values, as those of a weight.
        stored: Type of the codes in the file; ``FLOAT`` if floats hold them.
        codes: Computes the codes of a constant, less the zero point, int64; ``None`` if the file
            does not have them.
        steps: How steps and offsets vary.
        note: Why the width can't be read, so that it counts as 32 bits; or empty.
    """

    widths: IntArray
    source: ir.Value | None
    constant: bool
    stored: ir.DataType
    codes: Callable[[], IntArray] | None = None
    steps: Steps = ONE_STEP
    note: str = ""


def scalar(width: int) -> IntArray:
    """Makes widths of one width for a whole tensor; more than 32 bits count as 32."""
    return np.array(min(width, FLOAT_BITS), dtype=np.int64)


def range_bits(low: int, high: int) -> int:
    """Returns the width of the narrowest grid that has the codes ``low .. high`` and zero.

    Args:
        low: The smallest code, less the zero point.
        high: The largest code, less the zero point.
    """
    return (max(high, 0) - min(low, 0)).bit_length()


def is_stored(value: ir.Value | None) -> bool:
    """Says whether a value is an initializer."""
    return value is not None and value.const_value is not None
