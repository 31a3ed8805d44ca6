"""Operators that quantize their operands themselves, or hold codes that no node decodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.opspec import int_attribute, operator_key

_INT8_ACCURACY: Final = 4
"""``accuracy_level`` of MatMulNBits at which it rounds its activation to 8 bits, in blocks."""


def implicit_width(node: ir.Node, index: int) -> int | None:
    """Bits of an operand as the operator itself multiplies it.

    Returns:
        ``None`` where the value that it reads says so.
    """
    return _WIDTHS.get((operator_key(node), index), _as_read)(node)


def _as_read(node: ir.Node) -> int | None:
    return None


def _byte(node: ir.Node) -> int | None:
    return 8


def _packed(node: ir.Node) -> int | None:
    return int_attribute(node, "bits", 4)


def _activation_of_n_bits(node: ir.Node) -> int | None:
    return 8 if int_attribute(node, "accuracy_level", 0) == _INT8_ACCURACY else None


_WIDTHS: Final[dict[tuple[str, int], Callable[[ir.Node], int | None]]] = {
    ("com.microsoft.DynamicQuantizeLSTM", 0): _byte,
    ("com.microsoft.DynamicQuantizeMatMul", 0): _byte,
    ("com.microsoft.MatMulNBits", 0): _activation_of_n_bits,
    ("com.microsoft.MatMulNBits", 1): _packed,
}
