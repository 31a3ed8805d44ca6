"""What the attention operators share: heads, masks, and the computation itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``[batch, length, heads * size]`` to ``[batch, heads, length, size]``."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """``[batch, heads, length, size]`` to ``[batch, length, heads * size]``."""
    return x.transpose(1, 2).flatten(2)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Repeats every head of ``[batch, heads, length, size]``, so that groups of queries share it.

    Raises:
        ValueError: If the number of heads is not a multiple.
    """
    times, rest = divmod(heads, x.shape[1])
    if rest:
        raise ValueError(f"{heads} heads of queries don't share {x.shape[1]} heads of keys evenly")
    return x if times == 1 else x.repeat_interleave(times, dim=1)


@dataclass(frozen=True)
class Window:
    """Which keys a query may see, by position.

    Attributes:
        offset: Position of the first query; per sample (``[batch, 1, 1, 1]``) or for all.
        causal: Whether keys behind the query are hidden.
        left: Number of keys before the query that it sees, all if negative.
        right: Number of keys behind it, all if negative.
    """

    offset: int | Tensor
    causal: bool
    left: int = -1
    right: int = -1

    @property
    def is_triangle(self) -> bool:
        """Whether query ``i`` sees keys ``0..i``."""
        unbounded = self.left < 0 and self.right < 0
        return self.causal and unbounded and isinstance(self.offset, int) and self.offset == 0

    def visible(self, queries: Tensor, keys: int) -> Tensor | None:
        """Truth values that broadcast to ``[batch, heads, queries, keys]``; ``None`` for all true.

        Args:
            queries: ``[batch, heads, queries, size]``.
            keys: Number of keys.
        """
        right = 0 if self.causal else self.right
        if self.left < 0 and right < 0:
            return None
        position = torch.arange(queries.shape[2], device=queries.device)[:, None] + self.offset
        ahead = torch.arange(keys, device=queries.device) - position
        seen = torch.ones_like(ahead, dtype=torch.bool)
        if right >= 0:
            seen = ahead <= right
        return seen if self.left < 0 else seen & (ahead >= -self.left)


def combined_mask(mask: Tensor | None, *conditions: Tensor | None) -> Tensor | None:
    """Combines a mask (truth values, or numbers to add) with conditions.

    Where any condition is false, the key is hidden.
    """
    for condition in conditions:
        if condition is None:
            continue
        if mask is None:
            mask = condition
        elif mask.dtype is torch.bool:
            mask = mask & condition
        else:
            mask = torch.where(condition, mask, torch.full_like(mask, -math.inf))
    return mask


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, causal: bool = False
) -> Tensor:
    """``softmax(scale * q k' + mask) v``; zero for queries that see nothing.

    Args:
        q: ``[batch, heads, queries, size]``.
        k: ``[batch, heads of keys, keys, size]``.
        v: ``[batch, heads of keys, keys, size of values]``.
        mask: Truth values or numbers to add; broadcasts to ``[batch, heads, queries, keys]``.
        scale: Factor of the scores.
        causal: Whether query ``i`` sees keys ``0..i`` only; instead of a mask.
    """
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    if mask is not None:
        mask = mask.reshape(*(1,) * (4 - mask.dim()), *mask.shape)
    return functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)


@dataclass(frozen=True)
class Steps:
    """The result of attention and its intermediate values, ``[batch, heads, queries, keys]`` each.

    Attributes:
        scores: ``scale * q k'``.
        capped: Scores limited by ``cap * tanh(scores / cap)``.
        masked: Capped scores plus the mask.
        weights: Softmax of the masked scores.
        result: ``weights v``: ``[batch, heads, queries, size of values]``.
    """

    scores: Tensor
    capped: Tensor
    masked: Tensor
    weights: Tensor
    result: Tensor


def attention_in_steps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    cap: float = 0.0,
    precision: torch.dtype | None = None,
) -> Steps:
    """Computes :func:`fused_attention` step by step, and returns all steps.

    Args:
        q: As in :func:`fused_attention`.
        k: As there.
        v: As there.
        mask: As there.
        scale: As there.
        cap: Limit of the scores; 0 for none.
        precision: Type in which the softmax is computed; ``None`` for that of ``q``.
    """
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    # The scale is spread over both factors, as the standard has it: less overflow in halves.
    root = math.sqrt(scale)
    scores = (q * root) @ (k * root).transpose(2, 3)
    capped = cap * torch.tanh(scores / cap) if cap > 0 else scores
    if mask is None:
        masked = capped
        weights = _softmax(capped, precision)
    else:
        hidden = ~mask if mask.dtype is torch.bool else mask.isneginf()
        added = capped if mask.dtype is torch.bool else capped + mask
        masked = added.masked_fill(hidden, -math.inf)
        # A softmax of nothing but -inf would be 0/0, and so would its gradient.
        blind = hidden.all(dim=-1, keepdim=True)
        weights = _softmax(masked.masked_fill(blind, 0.0), precision).masked_fill(blind, 0.0)
    return Steps(scores, capped, masked, weights, weights @ v)


def _softmax(x: Tensor, precision: torch.dtype | None) -> Tensor:
    return torch.softmax(x, dim=-1, dtype=precision).to(x.dtype)
