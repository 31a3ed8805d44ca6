"""GroupQueryAttention, of language models exported for onnxruntime (domain com.microsoft)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.attention_core import (
    Window,
    attention_in_steps,
    combined_mask,
    fused_attention,
    join_heads,
    split_heads,
)
from onnx_cgmq.mirror.ops.rotary import rotate

_SCORES_OUTPUT = 3


def _check(ctx: Context) -> str | None:
    if ctx.integer("smooth_softmax", -1) > 0 or ctx.flag("sliding_window_cache"):
        return "smooth_softmax or sliding_window_cache"
    for name in ("k_quant_type", "v_quant_type"):
        if ctx.text(name, "NONE") != "NONE":
            return "a quantized cache"
    if not ctx.flag("causal", True):
        return "causal=0"
    return "the scores as an output" if ctx.wants(_SCORES_OUTPUT) else None


@onnx_op("GroupQueryAttention", domain="com.microsoft", host=(6,), check=_check)
def group_query_attention(
    ctx: Context,
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    last: Tensor,
    total: int | list[int],
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    positions: Tensor | None = None,
    added: Tensor | None = None,
    *others: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal attention that appends to a cache; keys and values with those of the past.

    Args:
        ctx: The node.
        query: ``[batch, length, heads * size]``; keys and values behind it, if they aren't apart.
        key: ``[batch, length, heads of keys * size]``.
        value: Like ``key``.
        past_key: ``[batch, heads of keys, past, size]``.
        past_value: Like ``past_key``.
        last: ``[batch]``: index of the last valid key.
        total: Length of the longest sequence, past and present.
        cos: ``[positions, pairs]``, if ``do_rotary`` is 1.
        sin: Like ``cos``.
        positions: ``[batch, length]``; those behind the past if omitted.
        added: Numbers to add to the scores.
        *others: Inputs of forms that are refused.

    Raises:
        ValueError: If any of the other inputs is given.
    """
    if any(other is not None for other in others):
        raise ValueError("head_sink, scales and normalization weights are not supported")
    heads, groups = ctx.integer("num_heads"), ctx.integer("kv_num_heads")
    if key is None or value is None:
        size = query.shape[2] // (heads + 2 * groups)
        query, key, value = torch.split(query, [heads * size, groups * size, groups * size], dim=2)
    q, k, v = split_heads(query, heads), split_heads(key, groups), split_heads(value, groups)
    length, longest = q.shape[2], total[0] if isinstance(total, list) else total
    # A prompt has no past; samples are as long as it is, or padded at their ends.
    before = last.reshape(-1, 1) + (1 - length)
    before = torch.zeros_like(before) if length == longest else before
    position = before + torch.arange(length, device=q.device)
    if ctx.flag("do_rotary"):
        assert cos is not None
        assert sin is not None
        chosen = position if positions is None else positions
        angles = cos[chosen][:, None], sin[chosen][:, None]
        q, k = (rotate(x, *angles, ctx.flag("rotary_interleaved")) for x in (q, k))
    k = _appended(past_key, k, position, longest)
    v = _appended(past_value, v, position, longest)
    width = ctx.integer("local_window_size", -1)
    window = Window(before.reshape(-1, 1, 1, 1), True, width - 1 if width > 0 else -1)
    scale, cap = ctx.real("scale") or 1 / math.sqrt(q.shape[3]), ctx.real("softcap")
    keys = k.shape[2]
    if added is not None:
        added = functional.pad(added, (0, keys - added.shape[3]))
    # Queries that are padding see the valid keys too, as in onnxruntime.
    valid = torch.arange(keys, device=q.device) <= last.reshape(-1, 1, 1, 1)
    mask = combined_mask(added, window.visible(q, keys), valid)
    if cap > 0:
        y = attention_in_steps(q, k, v, mask, scale, cap).result
    else:
        y = fused_attention(q, k, v, mask, scale)
    return join_heads(y), k, v


def _appended(past: Tensor | None, new: Tensor, position: Tensor, longest: int) -> Tensor:
    """The cache with ``[batch, heads, length, size]`` at new positions, and zeros behind."""
    if past is None:
        past = new.new_zeros(*new.shape[:2], 0, new.shape[3])
    cache = functional.pad(past, (0, 0, 0, max(0, longest - past.shape[2])))
    position = position[:, None, :, None]
    kept = torch.arange(cache.shape[2], device=new.device)[:, None] < position[:, :, :1]
    cache = torch.where(kept, cache, torch.zeros_like(cache))
    return cache.scatter(2, position.expand_as(new), new)
