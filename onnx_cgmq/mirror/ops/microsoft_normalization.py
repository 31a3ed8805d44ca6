"""Normalizations that onnxruntime's optimizer fuses with their neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.normalization import layer_normalization, rms_statistics

_DOMAIN: Final = "com.microsoft"
_EPSILON: Final = 1e-12


@onnx_op("SimplifiedLayerNormalization")
def simplified_layer_normalization(ctx: Context, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """RMSNormalization, as onnxruntime named it before it was in the standard; in its domain."""
    normalized, inverse = rms_statistics(ctx, x, ctx.real("epsilon", 1e-5))
    return normalized * scale, inverse


def _sum(x: Tensor, skip: Tensor, bias: Tensor | None) -> Tensor:
    return x + skip if bias is None else x + skip + bias


@onnx_op("SkipLayerNormalization", domain=_DOMAIN)
def skip_layer_normalization(
    ctx: Context,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """LayerNormalization of ``x + skip + bias``; mean, inverse deviation, and the sum."""
    total = _sum(x, skip, bias)
    y, *statistics = _normalized(ctx, total, scale, shift)
    return y, *(statistics or (None, None)), total


def _normalized(ctx: Context, x: Tensor, scale: Tensor, shift: Tensor | None) -> tuple[Tensor, ...]:
    attributes = {"epsilon": ctx.real("epsilon", _EPSILON)}
    return layer_normalization(replace(ctx, attributes=attributes), x, scale, shift)


@onnx_op("SkipSimplifiedLayerNormalization", domain=_DOMAIN)
def skip_simplified_layer_normalization(
    ctx: Context, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """RMSNormalization of ``x + skip + bias``; an unused mean, inverse deviation, and the sum."""
    total = _sum(x, skip, bias)
    normalized, inverse = rms_statistics(ctx, total, ctx.real("epsilon", _EPSILON))
    return normalized * scale, torch.zeros_like(inverse), inverse, total


@onnx_op("EmbedLayerNormalization", domain=_DOMAIN)
def embed_layer_normalization(
    ctx: Context,
    words: Tensor,
    segments: Tensor | None,
    word_table: Tensor,
    position_table: Tensor,
    segment_table: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNormalization of the sum of embeddings; unmasked words per sample, and the sum."""
    if positions is None:
        positions = torch.arange(words.shape[1], device=words.device)
    total = word_table[words] + position_table[positions]
    if segments is not None and segment_table is not None:
        total = total + segment_table[segments]
    counted = words.new_zeros(words.shape[0]) if mask is None else (mask == 1).sum(dim=1)
    y = _normalized(ctx, total, scale, shift)[0]
    return y, counted.to(torch.int32), total
