"""The one registry of operators that multiply and accumulate, and of those that only move codes.

Placement, channel axes, cost and kernels all read it, so that they can't disagree. A new operator
is one more :class:`OpSpec` in ``_MAC_OPS`` (and one geometry in ``cost/macs.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

_STANDARD_DOMAINS: Final = ("", "ai.onnx")


def standard_op(node: ir.Node) -> str | None:
    """Operator type of a node of the standard domain, else ``None``."""
    return node.op_type if node.domain in _STANDARD_DOMAINS else None


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Value of an integer attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Value of a float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


@dataclass(frozen=True)
class OpSpec:
    """What the quantizer placement must know of an operator that multiplies and accumulates.

    Attributes:
        op_type: Operator of the standard domain.
        bias: Index of its bias input, or ``None``.
        output_axis: ``(node, operand index, rank) -> axis`` of that operand which counts output
            channels (``None``: there is none); the channel axis if the operand is a weight.
        activation_axis: Channel axis of an activation operand; negative counts from the end.
        integer_kernel: Whether onnxruntime's CPU provider has an integer kernel for a node, whose
            bias then is INT32 at the product of both steps.
        operands: Indices of the two inputs that are multiplied.
    """

    op_type: str
    bias: int | None
    output_axis: Callable[[ir.Node, int, int], int | None]
    activation_axis: int
    integer_kernel: Callable[[ir.Node], bool]
    operands: tuple[int, int] = (0, 1)

    def bias_value(self, node: ir.Node) -> ir.Value | None:
        """The bias that a node reads, if any."""
        if self.bias is None or len(node.inputs) <= self.bias:
            return None
        value = node.inputs[self.bias]
        return value if value is not None and value.name else None


def _always(node: ir.Node) -> bool:
    return True


def _never(node: ir.Node) -> bool:
    return False


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
        return None  # a vector is contracted whole
    return rank - 1 if operand == 1 else rank - 2


def _plain_gemm(node: ir.Node) -> bool:
    """QGemm adds the bias at the product of both steps: only right without alpha and beta."""
    factors = (float_attribute(node, "alpha", 1.0), float_attribute(node, "beta", 1.0))
    return factors == (1.0, 1.0)


_MAC_OPS: Final = {
    spec.op_type: spec
    for spec in (
        OpSpec("Conv", 2, _conv_axis, 1, _always),
        OpSpec("ConvTranspose", 2, _conv_transpose_axis, 1, _never),
        OpSpec("Gemm", 2, _gemm_axis, -1, _plain_gemm),
        OpSpec("MatMul", None, _matmul_axis, -1, _always),
    )
}

MAC_OP_TYPES: Final = tuple(_MAC_OPS)
"""Operators that multiply and accumulate."""

CODE_TRANSPARENT_OPS: Final = frozenset(
    {
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "GlobalMaxPool",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that only select or move the elements of their first input (in inference)."""


def mac_spec(node: ir.Node) -> OpSpec | None:
    """Entry of a node that multiplies and accumulates, else ``None``."""
    return _MAC_OPS.get(standard_op(node) or "")


def moves_codes(node: ir.Node) -> bool:
    """Whether one grid for a whole tensor commutes with a node: ``f(q(x)) == q(f(x))``.

    True for operators that move or select elements, which includes the maximum since grids are
    monotone. It speaks of the first input and the first output.
    """
    return standard_op(node) in CODE_TRANSPARENT_OPS
