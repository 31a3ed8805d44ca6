"""Operators that take a state from the previous call and pass it on to the next."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.dtypes import from_movable, movable
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.attention_core import join_heads, repeat_heads, split_heads


@onnx_op("TensorScatter", since=24)
def tensor_scatter(
    ctx: Context, past: Tensor, update: Tensor, first: Tensor | None = None
) -> Tensor:
    """Writes new elements into a cache along ``axis``, at a position of its own for each sample."""
    axis = ctx.integer("axis", -2) % past.dim()
    position = torch.arange(update.shape[axis], device=past.device)
    position = position if first is None else position + first[:, None]
    if ctx.text("mode", "linear") == "circular":
        position = position % past.shape[axis]
    shape = [1] * past.dim()
    shape[0], shape[axis] = -1, update.shape[axis]
    index = position.reshape(shape).expand_as(update)
    return from_movable(movable(past).scatter(axis, index, movable(update)), past.dtype)


@onnx_op("CausalConvWithState", since=27)
def causal_conv_with_state(
    ctx: Context,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Depthwise convolution ``[batch, channels, time]`` that sees the past only, and its tail."""
    tail = weight.shape[2] - 1
    seen = functional.pad(x, (tail, 0)) if past is None else torch.cat((past, x), dim=2)
    y = functional.conv1d(seen, weight, bias, groups=weight.shape[0])
    if ctx.text("activation", "none") != "none":
        y = functional.silu(y)
    return y, seen[:, :, seen.shape[2] - tail :]


def _check_rule(ctx: Context) -> str | None:
    rule = ctx.text("update_rule", "gated_delta")
    known = ("linear", "gated", "delta", "gated_delta")
    return None if rule in known else f"unknown update_rule '{rule}'"


@onnx_op("LinearAttention", since=27, check=_check_rule)
def linear_attention(
    ctx: Context,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention with a state ``S``, to which the pairs of keys and values are added one by one.

    ``S = exp(decay) S``; ``v = beta (v - S' k)`` by the delta rules; ``S = S + k v'``; the result
    is ``scale S' q``.

    Raises:
        ValueError: If an input that the rule needs is missing.
    """
    rule, heads = ctx.text("update_rule", "gated_delta"), ctx.integer("kv_num_heads")
    if ("gated" in rule) != (decay is not None) or ("delta" in rule) != (beta is not None):
        raise ValueError(f"decay or beta don't fit update_rule '{rule}'")
    q = split_heads(query.float(), ctx.integer("q_num_heads"))
    k, v = (split_heads(x.float(), heads) for x in (key, value))
    size = k.shape[3]
    state = k.new_zeros(*k.shape[:2], size, v.shape[3]) if past is None else past.float()
    kept = None if decay is None else split_heads(decay.float(), heads).exp()
    rate = None if beta is None else beta.float().transpose(1, 2)[..., None]
    results = []
    for time in range(k.shape[2]):
        now, then = k[:, :, time, :, None], v[:, :, time, None, :]
        if kept is not None:
            state = state * kept[:, :, time, :, None]
        if rate is not None:
            known = now.transpose(2, 3) @ state
            then = rate[:, :, time, :, None] * (then - known)
        state = state + now * then
        results.append(q[:, :, time, None] @ repeat_heads(state, q.shape[1]))
    scale = ctx.real("scale") or size**-0.5
    y = join_heads(torch.cat(results, dim=2) * scale)
    return y.to(query.dtype), state.to(query.dtype if past is None else past.dtype)
