"""Attention as onnxruntime's optimizer fuses it (domain com.microsoft)."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.attention_core import (
    Window,
    combined_mask,
    fused_attention,
    join_heads,
    split_heads,
)

_DOMAIN: Final = "com.microsoft"
_HIDDEN: Final = -10000.0


def _hidden_keys(mask: Tensor, batch: int, keys: int) -> Tensor:
    """What a padding mask hides, to be broadcast to ``[batch, heads, queries, keys]``.

    Args:
        mask: ``[batch, keys]`` or ``[batch, queries, keys]`` with positive numbers for what is
            seen; or the ends of the sequences, ``[batch]``; or ends and then starts.
        batch: Number of samples.
        keys: Number of keys.

    Raises:
        ValueError: If the mask has another form.
    """
    if mask.dim() in (2, 3):
        return mask.reshape(batch, 1, -1, mask.shape[-1]) <= 0
    if mask.dim() != 1 or mask.shape[0] not in (batch, 2 * batch):
        raise ValueError(f"a mask of shape {tuple(mask.shape)}")
    key = torch.arange(keys, device=mask.device)
    bounds = mask.reshape(-1, batch, 1, 1, 1)
    behind = key >= bounds[0]
    return behind if len(bounds) == 1 else behind | (key < bounds[1])


def _attend(
    ctx: Context,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Tensor | None,
    bias: Tensor | None,
    past: int,
) -> Tensor:
    """Attention of heads, ``[batch, queries, heads * size]``.

    Args:
        ctx: The node.
        q: ``[batch, heads, queries, size]``, like ``k`` and ``v``, which have those of the past.
        k: Keys.
        v: Values.
        padding: See :func:`_hidden_keys`; what it hides has its scores lowered, not removed.
        bias: Numbers to add to the scores.
        past: Number of keys of the past.
    """
    keys = k.shape[2]
    scale = ctx.real("scale") or 1 / math.sqrt(q.shape[3])
    window = Window(past, ctx.flag("unidirectional"))
    if padding is None and bias is None and window.is_triangle:
        return join_heads(fused_attention(q, k, v, None, scale, causal=True))
    mask = bias
    if padding is not None:
        hidden = _hidden_keys(padding, q.shape[0], keys)
        lowered = hidden.to(q.dtype) * ctx.real("mask_filter_value", _HIDDEN)
        mask = lowered if bias is None else bias + lowered
    return join_heads(fused_attention(q, k, v, combined_mask(mask, window.visible(q, keys)), scale))


def _check_attention(ctx: Context) -> str | None:
    for name in ("do_rotary", "past_present_share_buffer"):
        if ctx.flag(name):
            return f"{name}=1"
    return None


@onnx_op("Attention", domain=_DOMAIN, check=_check_attention)
def attention(
    ctx: Context,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    padding: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Projects to queries, keys and values, and computes attention.

    Also returns keys and values, joined with the past ones, for the next call.
    """
    heads = ctx.integer("num_heads")
    sizes = list(ctx.integers("qkv_hidden_sizes") or (weights.shape[1] // 3,) * 3)
    projected = functional.linear(x, weights.t(), bias)
    q, k, v = (split_heads(part, heads) for part in torch.split(projected, sizes, dim=2))
    length = 0
    if past is not None:
        length = past.shape[3]
        k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
    y = _attend(ctx, q, k, v, padding, added, length)
    return y, torch.stack((k, v)) if ctx.wants(1) else y


def _check_multi_head(ctx: Context) -> str | None:
    return "the scores as an output" if ctx.wants(3) else None


@onnx_op("MultiHeadAttention", domain=_DOMAIN, check=_check_multi_head)
def multi_head_attention(
    ctx: Context,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    padding: Tensor | None = None,
    added: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of projected queries, keys and values.

    Also returns keys and values, joined with the past ones, for the next call.

    Raises:
        ValueError: If queries, keys and values come in one tensor.
    """
    if key is None or value is None or query.dim() != 3:
        raise ValueError("packed queries, keys and values are not supported")
    heads = ctx.integer("num_heads")
    if bias is not None:
        sizes = [query.shape[2], query.shape[2], bias.shape[0] - 2 * query.shape[2]]
        q_bias, k_bias, v_bias = torch.split(bias, sizes)
        query = query + q_bias
        if key.dim() == 3:
            key, value = key + k_bias, value + v_bias
    q = split_heads(query, heads)
    # Keys and values of four axes are those of an encoder, with heads apart already.
    k = split_heads(key, heads) if key.dim() == 3 else key
    v = split_heads(value, heads) if value.dim() == 3 else value
    length = 0
    if past_key is not None and past_value is not None:
        length = past_key.shape[2]
        k, v = torch.cat((past_key, k), dim=2), torch.cat((past_value, v), dim=2)
    return _attend(ctx, q, k, v, padding, added, length), k, v
