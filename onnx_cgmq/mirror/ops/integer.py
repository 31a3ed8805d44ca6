"""Matrix products and convolutions of integer codes, exact: there is no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.convolution import check_rank, conv


def _centred(codes: Tensor, zero_point: Tensor | None) -> Tensor:
    """Codes minus a zero point that broadcasts; float64 holds all sums of products exactly."""
    wide = codes.to(torch.float64)
    return wide if zero_point is None else wide - zero_point.to(torch.float64)


def _per_row(values: Tensor) -> Tensor:
    """A scale or zero point per row of a matrix, where it is a vector."""
    return values.unsqueeze(-1) if values.dim() == 1 else values


def _per_filter(values: Tensor, rank: int) -> Tensor:
    """One value per filter (or one for all) in a shape that broadcasts against ``rank`` axes."""
    return values.reshape(-1, *(1,) * (rank - 1))


def _accumulator(sums: Tensor) -> Tensor:
    """Converts sums to INT32; sums that do not fit wrap around."""
    return sums.to(torch.int64).to(torch.int32)


def _requantized(sums: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """``saturate(round(sums * scale) + zero_point)``, half to even."""
    limits = torch.iinfo(zero_point.dtype)
    codes = torch.round(sums.to(torch.float32) * scale) + zero_point
    return codes.clamp(limits.min, limits.max).to(zero_point.dtype)


def _ratio(a_scale: Tensor, b_scale: Tensor, y_scale: Tensor) -> Tensor:
    """The factor from a sum of products of codes to the codes of the output."""
    return a_scale.to(torch.float32) * b_scale.to(torch.float32) / y_scale.to(torch.float32)


@onnx_op("MatMulInteger", since=10)
def matmul_integer(
    ctx: Context,
    a: Tensor,
    b: Tensor,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
) -> Tensor:
    """Product of codes minus their zero points, INT32."""
    rows = None if a_zero_point is None else _per_row(a_zero_point)
    return _accumulator(_centred(a, rows) @ _centred(b, b_zero_point))


@onnx_op("QLinearMatMul", since=10)
def qlinear_matmul(
    ctx: Context,
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
) -> Tensor:
    """Product of two quantized matrices, quantized again."""
    sums = matmul_integer(ctx, a, b, a_zero_point, b_zero_point)
    return _requantized(sums, _ratio(_per_row(a_scale), b_scale, y_scale), y_zero_point)


@onnx_op("ConvInteger", since=10, check=check_rank)
def conv_integer(
    ctx: Context,
    x: Tensor,
    weight: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
) -> Tensor:
    """Convolution of codes minus their zero points, INT32; padding is the zero point."""
    if w_zero_point is not None:
        w_zero_point = _per_filter(w_zero_point, weight.dim())
    y = conv(ctx, _centred(x, x_zero_point), _centred(weight, w_zero_point))
    return _accumulator(y)


@onnx_op("QLinearConv", since=10, check=check_rank)
def qlinear_conv(
    ctx: Context,
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    weight: Tensor,
    w_scale: Tensor,
    w_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Quantized convolution; the bias is INT32 codes at the product of both scales."""
    sums = conv_integer(ctx, x, weight, x_zero_point, w_zero_point)
    rank = sums.dim() - 1
    if bias is not None:
        sums = sums + _per_filter(bias, rank)
    return _requantized(sums, _ratio(x_scale, _per_filter(w_scale, rank), y_scale), y_zero_point)
