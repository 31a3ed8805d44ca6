"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.dtypes import UNSIGNED_WIDE, computable
from onnx_cgmq.mirror.core.registry import Context, onnx_op


@onnx_op("Gemm", since=6)
def gemm(ctx: Context, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """``alpha * A' @ B' + beta * C``."""
    alpha, beta = ctx.real("alpha", 1.0), ctx.real("beta", 1.0)
    if a.dtype in UNSIGNED_WIDE:
        wide = None if c is None else computable(c)
        return gemm(ctx, computable(a), computable(b), wide).to(a.dtype)
    a = a.t() if ctx.flag("transA") else a
    simple = alpha == 1.0 and (c is None or (beta == 1.0 and c.dim() == 1))
    if simple and a.dtype.is_floating_point and (c is None or c.numel() == b.shape[_rows(ctx)]):
        return functional.linear(a, b if ctx.flag("transB") else b.t(), c)
    y = a @ (b.t() if ctx.flag("transB") else b)
    y = y if alpha == 1.0 else (y * alpha).to(y.dtype)
    if c is None:
        return y
    return y + (c if beta == 1.0 else (c * beta).to(c.dtype))


def _rows(ctx: Context) -> int:
    """Axis of B that becomes the columns of the result."""
    return 0 if ctx.flag("transB") else 1


@onnx_op("MatMul")
def matmul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Matrix product with numpy's broadcasting."""
    if a.dtype in UNSIGNED_WIDE:
        return torch.matmul(computable(a), computable(b)).to(a.dtype)
    return torch.matmul(a, b)


@onnx_op("Einsum", since=12)
def einsum(ctx: Context, *operands: Tensor) -> Tensor:
    """Einstein's sum; without ``->`` the result has the letters that occur once, sorted."""
    result = torch.einsum(ctx.text("equation"), *(computable(x) for x in operands))
    return result.to(operands[0].dtype)


@onnx_op("Det", since=11)
def determinant(ctx: Context, x: Tensor) -> Tensor:
    """Determinants of square matrices."""
    wide = x if x.dtype is torch.float64 else x.to(torch.float32)
    result: Tensor = torch.linalg.det(wide)
    return result.to(x.dtype)
