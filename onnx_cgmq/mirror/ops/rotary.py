"""Rotary position embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotates pairs of elements by an angle each; elements behind the last pair stay.

    Args:
        x: ``[..., size]``.
        cos: Cosines of the angles, ``[..., pairs]``, broadcast to ``x``.
        sin: Sines of the angles.
        interleaved: Whether neighbours are pairs, instead of elements of two halves.
    """
    width = 2 * cos.shape[-1]
    turned, kept = x[..., :width], x[..., width:]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned.chunk(2, dim=-1)
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    if interleaved:
        turned = torch.stack((real, imaginary), dim=-1).flatten(-2)
    else:
        turned = torch.cat((real, imaginary), dim=-1)
    return torch.cat((turned, kept), dim=-1) if kept.shape[-1] else turned


def _rotate_heads(
    ctx: Context, x: Tensor, cos: Tensor, sin: Tensor, packed_heads: int | None
) -> Tensor:
    """Rotates ``[batch, heads, time, size]``, or ``[batch, time, heads * size]``.

    Args:
        ctx: The node.
        x: The input.
        cos: ``[batch, time, pairs]``, as ``sin``.
        sin: Sines.
        packed_heads: Number of heads of the second form, else ``None``.

    Raises:
        ValueError: If the caches have other than ``rotary_embedding_dim / 2`` columns.
    """
    packed = packed_heads is not None
    heads = x.reshape(*x.shape[:2], packed_heads, -1) if packed_heads is not None else x
    width = ctx.integer("rotary_embedding_dim") or heads.shape[3]
    if 2 * cos.shape[-1] != width or 2 * sin.shape[-1] != width:
        raise ValueError(f"caches of {cos.shape[-1]} columns for {width} elements to rotate")
    axis = 2 if packed else 1
    y = rotate(heads, cos.unsqueeze(axis), sin.unsqueeze(axis), ctx.flag("interleaved"))
    return y.flatten(2) if packed else y


@onnx_op("RotaryEmbedding", since=23)
def rotary_embedding(
    ctx: Context, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Rotates by angles per time step, or looked up by position."""
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    return _rotate_heads(ctx, x, cos, sin, ctx.integer("num_heads") if x.dim() == 3 else None)


def _check_microsoft(ctx: Context) -> str | None:
    if ctx.flag("is_packed_batching"):
        return "is_packed_batching=1"
    return None if ctx.real("scale", 1.0) == 1.0 else "scale"


@onnx_op("RotaryEmbedding", domain="com.microsoft", check=_check_microsoft)
def rotary_embedding_microsoft(
    ctx: Context, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """The same with other inputs: positions of every time step, or of the first one only."""
    if positions.dim() == 1:
        length = x.shape[1] if x.dim() == 3 else x.shape[2]
        positions = (positions + torch.arange(length, device=x.device))[None]
    heads = None
    if x.dim() == 3:
        # Without the attribute the caches tell the size of a head.
        heads = ctx.integer("num_heads") or x.shape[2] // (2 * cos.shape[1])
    return _rotate_heads(ctx, x, cos[positions], sin[positions], heads)
