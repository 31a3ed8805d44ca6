"""The grid that a value lies on, as the nodes above it show it."""

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
    """What a quantizer of any form says about the values it makes.

    Attributes:
        widths: Bits, int64; broadcasts to the value.
        source: What is quantized: a float tensor, or the integers that a file stores; ``None`` if
            codes have neither.
        constant: Whether the values are fixed by the file, as those of a weight are.
        stored: Type of the codes in the file (``FLOAT`` if float nodes hold them).
        codes: Computes the symmetric codes of a constant, int64, where the file has them.
        note: Why a width can't be told (it counts as 32 bits then), or empty.
    """

    widths: IntArray
    source: ir.Value | None
    constant: bool
    stored: ir.DataType
    codes: Callable[[], IntArray] | None = None
    note: str = ""


def scalar(width: int) -> IntArray:
    """One width for a whole tensor; more than 32 bits count as 32."""
    return np.array(min(width, FLOAT_BITS), dtype=np.int64)


def range_bits(low: int, high: int) -> int:
    """Bits of the narrowest grid that has the codes ``low .. high`` and zero.

    Args:
        low: Smallest code, less the zero point.
        high: Largest code, less the zero point.
    """
    return (max(high, 0) - min(low, 0)).bit_length()


def is_stored(value: ir.Value | None) -> bool:
    """Whether a value is an initializer."""
    return value is not None and value.const_value is not None
