"""Operators that quantize an operand themselves, or read packed codes that no node dequantizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.nodes import int_attribute, operator_key

GATHER_BLOCK_QUANTIZED: Final = "com.microsoft.GatherBlockQuantized"
"""The operator that looks up rows in an embedding table which is quantized in blocks."""

INT8_ACCURACY: Final = 4
"""The ``accuracy_level`` at which MatMulNBits rounds its activation to 8 bits, in blocks."""


@dataclass(frozen=True)
class ImplicitOperand:
    """Width and shape of an operand, as its operator uses it.

    Attributes:
        bits: The width of the operand.
        shape: The shape of the operand, if the file holds it packed in another one.
    """

    bits: int
    shape: tuple[int, ...] | None = None


def implicit_operand(node: ir.Node, index: int) -> ImplicitOperand | None:
    """Finds what an operator itself, not the value that it reads, says about an operand.

    Args:
        node: The node.
        index: Index of the input that is the operand.

    Returns:
        Width and shape, or ``None`` if the operator uses the value as it is.
    """
    describe = _OPERANDS.get((operator_key(node), index))
    return None if describe is None else describe(node)


def _eight_bits(node: ir.Node) -> ImplicitOperand:
    return ImplicitOperand(8)


def _packed_matrix(node: ir.Node) -> ImplicitOperand:
    """Describes the weight of MatMulNBits, which is packed in blocks."""
    shape = (int_attribute(node, "N", 0), int_attribute(node, "K", 0))
    return ImplicitOperand(int_attribute(node, "bits", 4), shape)


def _rounded_in_blocks(node: ir.Node) -> ImplicitOperand | None:
    """Describes the activation of MatMulNBits, which some accuracy levels round to 8 bits."""
    return ImplicitOperand(8) if int_attribute(node, "accuracy_level", 0) == INT8_ACCURACY else None


def _packed_table(node: ir.Node) -> ImplicitOperand | None:
    """Describes a table whose codes are packed in UINT8 along the last axis.

    Returns ``None`` for INT4 and UINT4, which are types of single codes.
    """
    table = node.inputs[0]
    if table is None or table.const_value is None or table.const_value.dtype.bitwidth != 8:
        return None
    *rows, columns = (int(size) for size in table.const_value.shape.numpy())
    bits = int_attribute(node, "bits", 4)
    return ImplicitOperand(bits, (*rows, columns * 8 // bits))


_OPERANDS: Final[dict[tuple[str, int], Callable[[ir.Node], ImplicitOperand | None]]] = {
    ("com.microsoft.DynamicQuantizeLSTM", 0): _eight_bits,
    ("com.microsoft.DynamicQuantizeMatMul", 0): _eight_bits,
    ("com.microsoft.MatMulNBits", 0): _rounded_in_blocks,
    ("com.microsoft.MatMulNBits", 1): _packed_matrix,
    (GATHER_BLOCK_QUANTIZED, 0): _packed_table,
}
