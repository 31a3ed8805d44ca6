"""Attention and FlexAttention of the standard."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES
from onnx_cgmq.mirror.core.program import BoundBody
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.attention_core import (
    Window,
    attention_in_steps,
    combined_mask,
    fused_attention,
    join_heads,
    repeat_heads,
    split_heads,
)

_SCORES_OUTPUT = 3
_SCORES_MODES = ("scores", "capped", "masked", "weights")
_HALVES = (torch.float16, torch.bfloat16)


def _check(ctx: Context) -> str | None:
    if ctx.real("scale") < 0:
        return "a negative scale has no square root"
    if ctx.integer("qk_matmul_output_mode") not in range(len(_SCORES_MODES)):
        return "unknown qk_matmul_output_mode"
    return None


@onnx_op("Attention", since=23, check=_check)
def attention(
    ctx: Context,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Attention, keys and values with those of the past, and scores as ``qk_matmul_output_mode``.

    Raises:
        ValueError: If only one of past keys and values is given.
    """
    packed = q.dim() == 3
    if packed:
        q = split_heads(q, ctx.integer("q_num_heads"))
        k, v = (split_heads(x, ctx.integer("kv_num_heads")) for x in (k, v))
    if (past_key is None) != (past_value is None):
        raise ValueError("past_key and past_value belong together")
    offset: int | Tensor = 0
    filled = None
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        k, v = torch.cat((past_key, k), dim=2), torch.cat((past_value, v), dim=2)
    elif valid is not None:
        valid = valid.reshape(-1, 1, 1, 1)
        offset = valid - q.shape[2]
    if valid is not None:
        filled = torch.arange(k.shape[2], device=k.device) < valid
    window = Window(
        offset,
        ctx.flag("is_causal"),
        ctx.integer("left_window_size", -1),
        ctx.integer("right_window_size", -1),
    )
    # Masks and values may be of other types than queries.
    if mask is not None and mask.dtype is not torch.bool:
        mask = mask.to(q.dtype)
    values = v.to(q.dtype)
    scale = ctx.real("scale", 1 / math.sqrt(q.shape[3]))
    cap, precision = ctx.real("softcap"), _softmax_type(ctx, q.dtype)
    # The fused kernel sums halves up in single precision.
    fusible = precision is q.dtype or (precision is torch.float32 and q.dtype in _HALVES)
    if fusible and cap <= 0 and not ctx.wants(_SCORES_OUTPUT):
        causal = mask is None and filled is None and window.is_triangle
        mask = None if causal else _visible(q, k, mask, filled, window)
        y = fused_attention(q, k, values, mask, scale, causal)
        return join_heads(y) if packed else y, k, v
    mask = _visible(q, k, mask, filled, window)
    steps = attention_in_steps(q, k, values, mask, scale, cap, precision)
    y = join_heads(steps.result) if packed else steps.result
    return y, k, v, getattr(steps, _SCORES_MODES[ctx.integer("qk_matmul_output_mode")])


def _softmax_type(ctx: Context, default: torch.dtype) -> torch.dtype:
    wanted = ctx.integer("softmax_precision")
    return TORCH_DTYPES[ir.DataType(wanted)] if wanted else default


def _visible(
    q: Tensor, k: Tensor, mask: Tensor | None, filled: Tensor | None, window: Window
) -> Tensor | None:
    """Combines all masks into one."""
    keys = k.shape[2]
    return combined_mask(_extended(mask, keys), window.visible(q, keys), filled)


def _extended(mask: Tensor | None, keys: int) -> Tensor | None:
    """Extends a mask to all keys; those beyond its end are hidden."""
    if mask is None or mask.shape[-1] >= keys:
        return mask
    hidden = 0.0 if mask.dtype is torch.bool else -math.inf
    return functional.pad(mask, (0, keys - mask.shape[-1]), value=hidden)


@onnx_op("FlexAttention", domain="ai.onnx.preview", bodies=("score_mod", "prob_mod"))
def flex_attention(
    ctx: Context,
    score_mod: BoundBody | None,
    prob_mod: BoundBody | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
) -> Tensor:
    """Attention whose scores and weights are modified by subgraphs."""
    scale = ctx.real("scale", 1 / math.sqrt(q.shape[3]))
    default = q.dtype if q.dtype is torch.float64 else torch.float32
    precision = _softmax_type(ctx, default)
    if score_mod is None and prob_mod is None and precision is q.dtype:
        return fused_attention(q, k, v, None, scale)
    root = math.sqrt(scale)
    keys = repeat_heads(k, q.shape[1]) * root
    scores = ((q * root) @ keys.transpose(2, 3)).to(precision)
    scores = scores if score_mod is None else score_mod(scores)[0]
    weights = torch.softmax(scores, dim=-1)
    weights = weights if prob_mod is None else prob_mod(weights)[0]
    return (weights @ repeat_heads(v, q.shape[1]).to(precision)).to(v.dtype)
