"""Normalization."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES
from onnx_cgmq.mirror.core.registry import Context, onnx_op


def _check_inference(ctx: Context) -> str | None:
    if any(ctx.wants(output) for output in range(1, 5)):
        return "training mode before opset 14; upgrade the model, or export it for inference"
    return None


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (x.dim() - 2)) if x.dim() > 1 else values


@onnx_op("BatchNormalization", since=7, check=_check_inference)
def batch_normalization(
    ctx: Context, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """``scale * (x - mean) / sqrt(variance + epsilon) + bias`` with the statistics given.

    They are one per channel, or one per element of a sample with ``spatial=0`` (opset 7).
    """
    kind = torch.float64 if variance.dtype is torch.float64 else torch.float32
    factor = scale / torch.sqrt(variance.to(kind) + ctx.real("epsilon", 1e-5))
    shift = bias - mean.to(kind) * factor
    if ctx.flag("spatial", True):
        factor, shift = _per_channel(factor, x), _per_channel(shift, x)
    return (x * factor + shift).to(x.dtype)


@onnx_op("BatchNormalization", since=14)
def batch_normalization_modes(
    ctx: Context, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Batch normalization; in training mode with the batch's statistics.

    Training mode also returns the given statistics, updated with those of the batch.
    """
    if not ctx.flag("training_mode"):
        return batch_normalization(ctx, x, scale, bias, mean, variance)
    wide = x if x.dtype is torch.float64 else x.to(torch.float32)
    channels = wide.transpose(0, 1).flatten(1) if x.dim() > 1 else wide.unsqueeze(0)
    batch_mean, batch_variance = channels.mean(dim=1), channels.var(dim=1, correction=0)
    y = batch_normalization(ctx, x, scale, bias, batch_mean, batch_variance)
    momentum = ctx.real("momentum", 0.9)
    running_mean = mean * momentum + batch_mean * (1 - momentum)
    running_variance = variance * momentum + batch_variance * (1 - momentum)
    return y, running_mean.to(mean.dtype), running_variance.to(variance.dtype)


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


@onnx_op("LayerNormalization")
def layer_normalization(
    ctx: Context, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Normalizes over the axes from ``axis`` on; also mean and inverse standard deviation.

    Of the standard since opset 17; onnxruntime writes the same into files of older ones.
    """
    axes = tuple(range(ctx.integer("axis", -1) % x.dim(), x.dim()))
    epsilon = ctx.real("epsilon", 1e-5)
    stashed = _stash(ctx, x)
    size = x.shape[axes[0] :]
    simple = stashed.dtype is x.dtype and not (ctx.wants(1) or ctx.wants(2))
    if simple and scale.shape == size and (bias is None or bias.shape == size):
        return (functional.layer_norm(x, size, scale, bias, epsilon),)
    mean = stashed.mean(dim=axes, keepdim=True)
    centred = stashed - mean
    variance = centred.square().mean(dim=axes, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    y = (centred * inverse).to(x.dtype) * scale
    return y if bias is None else y + bias, mean, inverse


def rms_statistics(ctx: Context, x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Divides by the root mean square over the axes from ``axis`` on.

    Returns:
        The quotient, and the reciprocal of the root mean square.
    """
    axes = tuple(range(ctx.integer("axis", -1) % x.dim(), x.dim()))
    stashed = _stash(ctx, x)
    inverse = torch.rsqrt(stashed.square().mean(dim=axes, keepdim=True) + epsilon)
    return (stashed * inverse).to(x.dtype), inverse


@onnx_op("RMSNormalization", since=23)
def rms_normalization(ctx: Context, x: Tensor, scale: Tensor) -> Tensor:
    """Divides by the root mean square over the axes from ``axis`` on."""
    return rms_statistics(ctx, x, ctx.real("epsilon", 1e-5))[0] * scale


@onnx_op("GroupNormalization", since=18)
def group_normalization_per_group(ctx: Context, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalizes groups of channels of every sample; scale and bias per group."""
    size = x.shape[1] // ctx.integer("num_groups")
    return group_normalization(ctx, x, scale.repeat_interleave(size), bias.repeat_interleave(size))


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
    axes = ctx.integers("axes") or (0, 2, 3)
    mean = x.mean(dim=axes, keepdim=True)
    centred = x - mean
    # The norm has a gradient where all values are equal, the square root of the variance has none.
    norm: Tensor = torch.linalg.vector_norm(centred, dim=axes, keepdim=True)
    return centred / (norm / math.sqrt(x.numel() / mean.numel()) + 1e-9)
