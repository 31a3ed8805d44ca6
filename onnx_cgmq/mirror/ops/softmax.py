"""Softmax and its relatives."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_cgmq.mirror.registry import Context, onnx_op


def _coerced(ctx: Context, x: Tensor) -> Tensor:
    """The input as the matrix to which operators before opset 13 coerce it."""
    axis = ctx.integer("axis", 1)
    axis += x.dim() if axis < 0 else 0
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1)


def _hardmax(x: Tensor, axis: int) -> Tensor:
    best = x.argmax(dim=axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, best, 1.0)


@onnx_op("Softmax", since=1)
def softmax_flat(ctx: Context, x: Tensor) -> Tensor:
    """Softmax over all axes from ``axis`` on."""
    return torch.softmax(_coerced(ctx, x), dim=1).reshape(x.shape)


@onnx_op("Softmax", since=13)
def softmax(ctx: Context, x: Tensor) -> Tensor:
    """Softmax over one axis."""
    return torch.softmax(x, dim=ctx.integer("axis", -1))


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
