"""Normalization."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.dtypes import TORCH_DTYPES
from onnx_cgmq.mirror.registry import Context, onnx_op


def _check_inference(ctx: Context) -> str | None:
    if ctx.flag("training_mode") or ctx.output_count > 1:
        return "training mode; export the model for inference"
    if not ctx.flag("spatial", True):
        return "spatial=0"
    return None


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (x.dim() - 2)) if x.dim() > 1 else values


@onnx_op("BatchNormalization", since=7, check=_check_inference)
def batch_normalization(
    ctx: Context, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """``scale * (x - mean) / sqrt(variance + epsilon) + bias`` with the stored statistics."""
    factor = scale / torch.sqrt(variance + ctx.real("epsilon", 1e-5))
    shift = bias - mean * factor
    return (x * _per_channel(factor, x) + _per_channel(shift, x)).to(x.dtype)


@onnx_op("InstanceNormalization", since=6)
def instance_normalization(ctx: Context, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalizes every channel of every sample."""
    axes = tuple(range(2, x.dim()))
    centred = x - x.mean(dim=axes, keepdim=True)
    variance = centred.square().mean(dim=axes, keepdim=True)
    y = centred / torch.sqrt(variance + ctx.real("epsilon", 1e-5))
    return y * _per_channel(scale, x) + _per_channel(bias, x)


def _stash(ctx: Context, x: Tensor) -> Tensor:
    """The input in the type in which statistics are computed."""
    stash = TORCH_DTYPES[ir.DataType(ctx.integer("stash_type", 1))]
    return x if x.dtype is torch.float64 else x.to(stash)


@onnx_op("LayerNormalization", since=17)
def layer_normalization(
    ctx: Context, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalizes over the axes from ``axis`` on; also mean and inverse standard deviation."""
    axes = tuple(range(ctx.integer("axis", -1) % x.dim(), x.dim()))
    stashed = _stash(ctx, x)
    mean = stashed.mean(dim=axes, keepdim=True)
    centred = stashed - mean
    variance = centred.square().mean(dim=axes, keepdim=True)
    inverse = torch.rsqrt(variance + ctx.real("epsilon", 1e-5))
    y = (centred * inverse).to(x.dtype) * scale
    return y if bias is None else y + bias, mean, inverse


@onnx_op("RMSNormalization", since=23)
def rms_normalization(ctx: Context, x: Tensor, scale: Tensor) -> Tensor:
    """Divides by the root mean square over the axes from ``axis`` on."""
    axes = tuple(range(ctx.integer("axis", -1) % x.dim(), x.dim()))
    stashed = _stash(ctx, x)
    mean_square = stashed.square().mean(dim=axes, keepdim=True)
    return (stashed * torch.rsqrt(mean_square + ctx.real("epsilon", 1e-5))).to(x.dtype) * scale


@onnx_op("GroupNormalization", since=21)
def group_normalization(ctx: Context, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalizes groups of channels of every sample; scale and bias per channel."""
    stashed = _stash(ctx, x)
    y = functional.group_norm(stashed, ctx.integer("num_groups"), eps=ctx.real("epsilon", 1e-5)).to(
        x.dtype
    )
    return y * _per_channel(scale, x) + _per_channel(bias, x)


@onnx_op("LRN")
def local_response_normalization(ctx: Context, x: Tensor) -> Tensor:
    """Divides by a power of the mean square of neighbouring channels."""
    size = ctx.integer("size")
    before, after = (size - 1) // 2, size // 2
    squares = x.square()
    padded = functional.pad(squares, (0, 0) * (x.dim() - 2) + (before, after))
    sums = padded.unfold(1, size, 1).sum(dim=-1)
    alpha, beta, bias = ctx.real("alpha", 1e-4), ctx.real("beta", 0.75), ctx.real("bias", 1.0)
    return x / (bias + alpha / size * sums).pow(beta)


@onnx_op("LpNormalization")
def lp_normalization(ctx: Context, x: Tensor) -> Tensor:
    """Divides by the 1- or 2-norm along an axis; zero vectors stay zero."""
    norm = torch.linalg.vector_norm(
        x, ctx.integer("p", 2), dim=ctx.integer("axis", -1), keepdim=True
    )
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, 1.0, norm))


@onnx_op("MeanVarianceNormalization", since=9)
def mean_variance_normalization(ctx: Context, x: Tensor) -> Tensor:
    """Normalizes over axes (0, 2, 3 by default)."""
    axes: Sequence[int] = ctx.integers("axes") or (0, 2, 3)
    centred = x - x.mean(dim=tuple(axes), keepdim=True)
    deviation = torch.sqrt(centred.square().mean(dim=tuple(axes), keepdim=True))
    return centred / (deviation + 1e-9)
