"""Operators that quantize an operand themselves, or read codes that no node decodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.nodes import int_attribute, operator_key

TABLE_OF_BLOCKS: Final = "com.microsoft.GatherBlockQuantized"
"""A lookup in a table whose rows are quantized in blocks."""

_INT8_ACCURACY: Final = 4
"""``accuracy_level`` of MatMulNBits at which it rounds its activation to 8 bits, in blocks."""


@dataclass(frozen=True)
class Inside:
    """An operand as an operator uses it, whatever it reads.

    Attributes:
        bits: Its width.
        shape: Its shape, where the file holds it packed in another one.
    """

    bits: int
    shape: tuple[int, ...] | None = None


def quantized_inside(node: ir.Node, index: int) -> Inside | None:
    """What an operator itself says of an operand.

    Returns:
        ``None`` where the value that it reads says all.
    """
    say = _OPERANDS.get((operator_key(node), index))
    return None if say is None else say(node)


def _byte(node: ir.Node) -> Inside:
    return Inside(8)


def _matrix(node: ir.Node) -> Inside:
    shape = (int_attribute(node, "N", 0), int_attribute(node, "K", 0))
    return Inside(int_attribute(node, "bits", 4), shape)


def _rounded_in_blocks(node: ir.Node) -> Inside | None:
    return Inside(8) if int_attribute(node, "accuracy_level", 0) == _INT8_ACCURACY else None


def _table(node: ir.Node) -> Inside | None:
    """UINT8 holds several codes along the last axis; INT4 and UINT4 say their width."""
    table = node.inputs[0]
    if table is None or table.const_value is None or table.const_value.dtype.bitwidth != 8:
        return None
    *rows, columns = (int(size) for size in table.const_value.shape.numpy())
    bits = int_attribute(node, "bits", 4)
    return Inside(bits, (*rows, columns * 8 // bits))


_OPERANDS: Final[dict[tuple[str, int], Callable[[ir.Node], Inside | None]]] = {
    ("com.microsoft.DynamicQuantizeLSTM", 0): _byte,
    ("com.microsoft.DynamicQuantizeMatMul", 0): _byte,
    ("com.microsoft.MatMulNBits", 0): _rounded_in_blocks,
    ("com.microsoft.MatMulNBits", 1): _matrix,
    (TABLE_OF_BLOCKS, 0): _table,
}
