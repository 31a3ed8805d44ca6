"""Grid: what the nodes above a value show about the grid that it lies on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS

IntArray = npt.NDArray[np.int64]


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
        note: Why the width can't be read, so that it counts as 32 bits; or empty.
    """

    widths: IntArray
    source: ir.Value | None
    constant: bool
    stored: ir.DataType
    codes: Callable[[], IntArray] | None = None
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
