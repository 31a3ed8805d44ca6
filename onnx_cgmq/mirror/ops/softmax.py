"""Softmax and its relatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op


def _coerced(ctx: Context, x: Tensor) -> Tensor:
    """The input as the matrix to which operators before opset 13 coerce it."""
    axis = ctx.integer("axis", 1)
    axis += x.dim() if axis < 0 else 0
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1)


class _Softmax(torch.autograd.Function):
    """Softmax whose gradient is zero where it is NaN itself: in rows of nothing but ``-inf``.

    Attention has such rows where a mask hides every key. Models replace the NaN by zero afterwards,
    which stops the gradient there, but 0 times NaN would be NaN again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> Tensor:
        """Softmax over one axis."""
        y = torch.softmax(x, dim=axis)
        ctx.save_for_backward(y)
        ctx.axis = axis
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """``y (g - sum(g y))``."""
        (y,) = ctx.saved_tensors
        g = torch.ops.aten._softmax_backward_data(gradients[0], y, ctx.axis, y.dtype)
        # One NaN makes all of its row NaN.
        first = y.narrow(ctx.axis, 0, min(1, y.shape[ctx.axis]))
        return g.masked_fill_(first.isnan(), 0.0), None


def _softmax(x: Tensor, axis: int) -> Tensor:
    result: Tensor = _Softmax.apply(x, axis)  # type: ignore[no-untyped-call]
    return result


def _hardmax(x: Tensor, axis: int) -> Tensor:
    best = x.argmax(dim=axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, best, 1.0)


@onnx_op("Softmax", since=1)
def softmax_flat(ctx: Context, x: Tensor) -> Tensor:
    """Softmax over all axes from ``axis`` on."""
    return _softmax(_coerced(ctx, x), 1).reshape(x.shape)


@onnx_op("Softmax", since=13)
def softmax(ctx: Context, x: Tensor) -> Tensor:
    """Softmax over one axis."""
    return _softmax(x, ctx.integer("axis", -1))


@onnx_op("LogSoftmax", since=1)
def log_softmax_flat(ctx: Context, x: Tensor) -> Tensor:
    """Logarithm of softmax over all axes from ``axis`` on."""
    return torch.log_softmax(_coerced(ctx, x), dim=1).reshape(x.shape)


@onnx_op("LogSoftmax", since=13)
def log_softmax(ctx: Context, x: Tensor) -> Tensor:
    """Logarithm of softmax over one axis."""
    return torch.log_softmax(x, dim=ctx.integer("axis", -1))


@onnx_op("Hardmax", since=1)
def hardmax_flat(ctx: Context, x: Tensor) -> Tensor:
    """1 at the first maximum over all axes from ``axis`` on, else 0."""
    return _hardmax(_coerced(ctx, x), 1).reshape(x.shape)


@onnx_op("Hardmax", since=13)
def hardmax(ctx: Context, x: Tensor) -> Tensor:
    """1 at the first maximum over one axis, else 0."""
    return _hardmax(x, ctx.integer("axis", -1))
