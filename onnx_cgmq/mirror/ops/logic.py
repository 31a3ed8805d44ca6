"""Comparisons, logic, and operators on bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import comparable, computable
from onnx_cgmq.mirror.core.registry import Context, onnx_op

_Binary = Callable[[Tensor, Tensor], Tensor]

_COMPARISONS: dict[str, _Binary] = {
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
}
_LOGIC: dict[str, _Binary] = {
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
_BITWISE: dict[str, _Binary] = {
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}
_LARGEST = 2**63 - 1


@onnx_op(*_COMPARISONS, since=7)
def compare(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Elementwise comparison."""
    return _COMPARISONS[ctx.op_type](comparable(a), comparable(b))


@onnx_op(*_LOGIC, since=7)
def logic(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Elementwise logic."""
    return _LOGIC[ctx.op_type](a, b)


@onnx_op("Not")
def logical_not(ctx: Context, x: Tensor) -> Tensor:
    """Elementwise negation."""
    return torch.logical_not(x)


@onnx_op(*_BITWISE, since=18)
def bitwise(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Elementwise logic on bits."""
    return _BITWISE[ctx.op_type](computable(a), computable(b)).to(a.dtype)


@onnx_op("BitwiseNot", since=18)
def bitwise_not(ctx: Context, x: Tensor) -> Tensor:
    """Inverts all bits."""
    return torch.bitwise_not(computable(x)).to(x.dtype)


@onnx_op("BitShift", since=11)
def bit_shift(ctx: Context, x: Tensor, amount: Tensor) -> Tensor:
    """Shifts bits; a right shift copies the sign of signed types.

    Amounts that are negative or reach the width of the type leave zeros (or copies of the sign).
    """
    bits, by = x.to(torch.int64), amount.to(torch.int64)
    width = 8 * x.element_size()
    beyond, by = (by < 0) | (by >= width), by.clamp(0, width - 1)
    if ctx.text("direction") == "LEFT":
        return torch.where(beyond, 0, bits << by).to(x.dtype)
    if x.dtype is torch.uint64:  # in int64 the first place would copy the sign
        shifted = torch.where(by == 0, bits, (bits >> 1 & _LARGEST) >> (by - 1).clamp_min(0))
        return torch.where(beyond, 0, shifted).to(x.dtype)
    return torch.where(beyond, bits >> 63, bits >> by).to(x.dtype)


@onnx_op("IsNaN", since=9)
def is_nan(ctx: Context, x: Tensor) -> Tensor:
    """Where elements are not a number."""
    return torch.isnan(x)


@onnx_op("IsInf", since=10)
def is_inf(ctx: Context, x: Tensor) -> Tensor:
    """Where elements are infinite, of the signs asked for."""
    result = torch.zeros_like(x, dtype=torch.bool)
    if ctx.flag("detect_positive", True):
        result = result | (x == torch.inf)
    if ctx.flag("detect_negative", True):
        result = result | (x == -torch.inf)
    return result
