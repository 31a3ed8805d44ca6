"""Operators that multiply and accumulate, or look up rows: their operands, bias and channel axes.

They are rows of the one table in :mod:`~onnx_cgmq.graph.operators`. To add an operator, add an
:class:`OpSpec` here, and its products in ``cost/products.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph import einsum
from onnx_cgmq.graph.nodes import float_attribute, int_attribute


class Codes(Enum):
    """What an operator does with integer codes."""

    MAKES = "makes codes of floats"
    READS = "makes floats of codes"
    COMPUTES = "computes on codes"


def _no_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    return None


def _always(node: ir.Node) -> bool:
    return True


def _never(node: ir.Node) -> bool:
    return False


@dataclass(frozen=True)
class OpSpec:
    """What placement, cost and writing must know about an operator whose operands are quantized.

    Attributes:
        op_type: The operator, as :func:`~onnx_cgmq.graph.nodes.operator_key` names it.
        bias: Index of the bias input, or ``None`` if the operator has none.
        output_axis: ``output_axis(node, operand index, rank)`` returns the axis of an operand that
            counts output channels, or ``None`` if there is no such axis. If the operand is a
            weight, this is its channel axis.
        activation_axis: Channel axis of an operand that is an activation; a negative one counts
            from the end.
        integer_kernel: Whether onnxruntime's CPU provider has an integer kernel for a node. The
            bias of such a node is INT32, in units of the product of both steps.
        operands: Indices of the operands, which get quantizers. If two of them are multiplied, the
            first is the one that usually is the activation.
        quantizable: Whether the operands of a node get quantizers. Its multiply-accumulates count
            in either case.
        codes: What the operator does with integer codes; ``None`` if it does nothing with them.
    """

    op_type: str
    bias: int | None = None
    output_axis: Callable[[ir.Node, int, int], int | None] = _no_axis
    activation_axis: int = -1
    integer_kernel: Callable[[ir.Node], bool] = _never
    operands: tuple[int, ...] = (0, 1)
    quantizable: Callable[[ir.Node], bool] = _always
    codes: Codes | None = None

    def bias_value(self, node: ir.Node) -> ir.Value | None:
        """Returns the bias that a node reads, or ``None`` if it reads none."""
        if self.bias is None or len(node.inputs) <= self.bias:
            return None
        value = node.inputs[self.bias]
        return value if value is not None and value.name else None

    def operand_values(self, node: ir.Node) -> tuple[tuple[int, ir.Value], ...]:
        """Returns index and value of every operand that a node reads, without omitted ones."""
        found = ((i, node.inputs[i]) for i in self.operands if i < len(node.inputs))
        return tuple((i, value) for i, value in found if value is not None and value.name)


def _conv_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    return 0 if operand == 1 else None


def _conv_transpose_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    return 1 if operand == 1 else None  # [in, out / group, k...]


def _gemm_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    if operand == 1:
        return 0 if int_attribute(node, "transB", 0) else 1
    return 1 if int_attribute(node, "transA", 0) else 0


def _matmul_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    if rank < 2:
        return None  # all of a vector is summed over
    return rank - 1 if operand == 1 else rank - 2


def _recurrent_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    return 1 if operand in (1, 2) else None  # [directions, gates, in]


def _table_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    return int_attribute(node, "axis", 0) % rank


def _plain_gemm(node: ir.Node) -> bool:
    """Says whether a Gemm has no factors.

    QGemm adds the bias in units of the product of both steps, which alpha or beta would change.
    """
    factors = (float_attribute(node, "alpha", 1.0), float_attribute(node, "beta", 1.0))
    return factors == (1.0, 1.0)


def _is_float_table(node: ir.Node) -> bool:
    """Says whether a Gather looks up rows of a constant float table: an embedding table."""
    table = node.inputs[0].const_value if node.inputs and node.inputs[0] is not None else None
    return table is not None and table.dtype is ir.DataType.FLOAT and len(table.shape) > 1


MAC_OPERATORS: Final = (
    OpSpec("Attention", operands=(0, 1, 2)),
    OpSpec("Conv", 2, _conv_axis, 1, _always),
    OpSpec("ConvInteger", quantizable=_never, codes=Codes.COMPUTES),
    OpSpec("ConvTranspose", 2, _conv_transpose_axis, 1),
    OpSpec("DeformConv", 3, _conv_axis, operands=(1,)),
    OpSpec("Einsum", None, einsum.output_axis, quantizable=einsum.is_plain_einsum),
    OpSpec("GRU", 3, _recurrent_axis, operands=(0, 1, 2)),
    OpSpec("Gemm", 2, _gemm_axis, -1, _plain_gemm),
    OpSpec("LSTM", 3, _recurrent_axis, operands=(0, 1, 2)),
    OpSpec("MatMul", None, _matmul_axis, -1, _always),
    OpSpec("MatMulInteger", quantizable=_never, codes=Codes.COMPUTES),
    OpSpec("QLinearConv", 8, operands=(0, 3), quantizable=_never, codes=Codes.COMPUTES),
    OpSpec("QLinearMatMul", operands=(0, 3), quantizable=_never, codes=Codes.COMPUTES),
    OpSpec("RNN", 3, _recurrent_axis, operands=(0, 1, 2)),
    OpSpec("com.microsoft.Attention", quantizable=_never),
    OpSpec(
        "com.microsoft.DynamicQuantizeLSTM",
        3,
        operands=(0, 1, 2),
        quantizable=_never,
        codes=Codes.COMPUTES,
    ),
    OpSpec("com.microsoft.DynamicQuantizeMatMul", 4, quantizable=_never, codes=Codes.COMPUTES),
    OpSpec("com.microsoft.FusedConv", 2, quantizable=_never),
    OpSpec("com.microsoft.FusedGemm", 2, quantizable=_never),
    OpSpec("com.microsoft.FusedMatMul", quantizable=_never),
    OpSpec("com.microsoft.GroupQueryAttention", operands=(0,), quantizable=_never),
    OpSpec("com.microsoft.MatMulIntegerToFloat", 6, quantizable=_never, codes=Codes.COMPUTES),
    OpSpec("com.microsoft.MatMulNBits", 5, quantizable=_never, codes=Codes.READS),
    OpSpec("com.microsoft.MultiHeadAttention", operands=(0,), quantizable=_never),
    OpSpec("com.microsoft.QAttention", 2, quantizable=_never, codes=Codes.COMPUTES),
    OpSpec("com.microsoft.QGemm", 6, operands=(0, 3), quantizable=_never, codes=Codes.COMPUTES),
    OpSpec("com.microsoft.TransposeMatMul", quantizable=_never),
)
"""The operators that multiply and accumulate."""

LOOKUP: Final = OpSpec("Gather", None, _table_axis, operands=(0,), quantizable=_is_float_table)
"""Gather from an embedding table: no multiply-accumulates, but often most of a model's size."""


def is_plain_product(node: ir.Node) -> bool:
    """Says whether a MatMul or Gemm has no factors, and reads its first operand as it is."""
    return node.op_type == "MatMul" or (_plain_gemm(node) and not int_attribute(node, "transA", 0))


def is_quantizable(spec: OpSpec) -> bool:
    """Says whether there are nodes of an operator whose operands get quantizers."""
    return spec.quantizable is not _never
