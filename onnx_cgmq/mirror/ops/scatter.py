"""Operators that write into a copy of a tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import (
    comparable,
    computable,
    from_comparable,
    from_movable,
    movable,
)
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.indexing import positive

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
_LOGICAL = {"sum": "amax", "prod": "amin"}
"""Sums and products of truth values, which don't overflow this way."""


def _check_reduction(ctx: Context) -> str | None:
    reduction = ctx.text("reduction", "none")
    return None if reduction in ("none", *_REDUCTIONS) else f"reduction '{reduction}'"


def _reduced(x: Tensor, axis: int, index: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """Combines updates with the elements at an index along an axis."""
    how = _REDUCTIONS[reduction]
    if x.dtype is torch.bool:
        how = _LOGICAL.get(how, how)
        data, new = x.to(torch.uint8), updates.to(torch.uint8)
        return data.scatter_reduce(axis, index, new, how).to(torch.bool)
    if how in ("sum", "prod"):
        data, new = computable(x), computable(updates)
        return data.scatter_reduce(axis, index, new, how).to(x.dtype)
    data, new = comparable(x), comparable(updates)
    return from_comparable(data.scatter_reduce(axis, index, new, how), x.dtype)


@onnx_op("Scatter", since=9)
@onnx_op("ScatterElements", since=11, check=_check_reduction)
def scatter_elements(ctx: Context, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Writes elements along an axis, one index for each."""
    axis, reduction = ctx.integer("axis"), ctx.text("reduction", "none")
    index = positive(indices, x.shape[axis])
    if reduction == "none":
        return from_movable(movable(x).scatter(axis, index, movable(updates)), x.dtype)
    return _reduced(x, axis, index, updates, reduction)


@onnx_op("ScatterND", since=11, check=_check_reduction)
def scatter_nd(ctx: Context, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Writes slices at index tuples."""
    target = indices.unbind(-1)
    reduction = ctx.text("reduction", "none")
    if reduction == "none":
        return from_movable(movable(x).index_put(target, movable(updates)), x.dtype)
    # The slices are numbered, so that one axis is left; looking the numbers up checks the indices.
    outer, inner = x.shape[: len(target)], x.shape[len(target) :]
    rows, width = math.prod(outer), math.prod(inner)
    numbers = torch.arange(rows, device=x.device).reshape(outer)[target]
    index = numbers.reshape(-1, 1).expand(-1, width)
    flat, new = x.reshape(rows, width), updates.reshape(-1, width)
    return _reduced(flat, 0, index, new, reduction).reshape(x.shape)
