"""Operators that draw random numbers.

They draw from torch's generator, so ``torch.manual_seed`` makes them repeatable. The attribute
``seed`` is not used: the standard does not say which generator it seeds, nor when.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES, is_supported
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.host import Number, number


def _check_dtype(ctx: Context) -> str | None:
    target = ir.DataType(ctx.integer("dtype", ir.DataType.FLOAT))
    return None if is_supported(target) else f"no tensors of type {target.name}"


def _dtype(ctx: Context, default: torch.dtype) -> torch.dtype:
    return TORCH_DTYPES[ir.DataType(ctx.integer("dtype"))] if ctx.has("dtype") else default


@onnx_op("Dropout", since=7)
def dropout_inference(ctx: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """The input itself, and a mask that keeps everything."""
    return x, torch.ones_like(x, dtype=torch.bool if ctx.opset >= 10 else x.dtype)


@onnx_op("Dropout", since=12, host=(1, 2))
def dropout(
    ctx: Context, x: Tensor, ratio: Number | None = None, training: bool | list[bool] | None = None
) -> tuple[Tensor, Tensor]:
    """Zeroes a share of the elements and scales the rest if the graph asks for training mode."""
    share = 0.5 if ratio is None else number(ratio)
    if training in (None, False, [False]) or share == 0:
        return dropout_inference(ctx, x)
    kept = torch.rand(x.shape, device=x.device) >= share
    return x * kept / (1 - share), kept


@onnx_op("Bernoulli", since=15, check=_check_dtype)
def bernoulli(ctx: Context, x: Tensor) -> Tensor:
    """1 with the probabilities given, else 0."""
    return torch.bernoulli(x.detach()).to(_dtype(ctx, x.dtype))


@onnx_op("RandomNormal", check=_check_dtype)
def random_normal(ctx: Context) -> Tensor:
    """Normally distributed numbers, of a shape given as an attribute."""
    return _normal(ctx, torch.empty(ctx.integers("shape") or (), device=ctx.device))


@onnx_op("RandomNormalLike", check=_check_dtype)
def random_normal_like(ctx: Context, x: Tensor) -> Tensor:
    """Normally distributed numbers, of the shape of the input."""
    return _normal(ctx, x)


def _normal(ctx: Context, like: Tensor) -> Tensor:
    drawn = torch.randn(like.shape, device=like.device)
    return (drawn * ctx.real("scale", 1.0) + ctx.real("mean")).to(_dtype(ctx, like.dtype))


@onnx_op("RandomUniform", check=_check_dtype)
def random_uniform(ctx: Context) -> Tensor:
    """Evenly distributed numbers, of a shape given as an attribute."""
    return _uniform(ctx, torch.empty(ctx.integers("shape") or (), device=ctx.device))


@onnx_op("RandomUniformLike", check=_check_dtype)
def random_uniform_like(ctx: Context, x: Tensor) -> Tensor:
    """Evenly distributed numbers, of the shape of the input."""
    return _uniform(ctx, x)


def _uniform(ctx: Context, like: Tensor) -> Tensor:
    low, high = ctx.real("low"), ctx.real("high", 1.0)
    drawn = torch.rand(like.shape, device=like.device)
    return (low + (high - low) * drawn).to(_dtype(ctx, like.dtype))


@onnx_op("Multinomial", since=7, check=_check_dtype)
def multinomial(ctx: Context, x: Tensor) -> Tensor:
    """Classes drawn by unnormalized log-probabilities, ``[batch, sample_size]``."""
    drawn = torch.multinomial(
        torch.softmax(x.detach(), dim=1), ctx.integer("sample_size", 1), replacement=True
    )
    return drawn.to(_dtype(ctx, torch.int32))
