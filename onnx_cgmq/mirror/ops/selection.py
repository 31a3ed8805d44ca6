"""Operators that select by the values of a tensor, so the data decide the size of the result."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import comparable, from_movable, movable
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.host import Number, number
from onnx_cgmq.mirror.ops.indexing import positive


@onnx_op("NonZero", since=9)
def non_zero(ctx: Context, x: Tensor) -> Tensor:
    """Indices of the elements that are not zero, ``[rank, count]`` int64."""
    return movable(x).nonzero().t()


@onnx_op("Compress", since=9)
def compress(ctx: Context, x: Tensor, condition: Tensor) -> Tensor:
    """The slices (or elements) where a condition, which may be shorter, holds."""
    kept = condition.nonzero().reshape(-1)
    x, axis = (x, ctx.integer("axis")) if ctx.has("axis") else (x.reshape(-1), 0)
    return from_movable(movable(x).index_select(axis, kept), x.dtype)


@onnx_op("Unique", since=11)
def unique(ctx: Context, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distinct elements (or slices), where they occur first, their inverse and their counts.

    They are taken from where they occur first, and so is their gradient. NaNs are one element, as
    in numpy.
    """
    x, axis = (x, ctx.integer("axis")) if ctx.has("axis") else (x.reshape(-1), None)
    along = 0 if axis is None else axis
    values, inverse = torch.unique(comparable(x.detach()), dim=axis, return_inverse=True)
    if axis is None:
        inverse = inverse.clamp(max=int((values == values).sum()))
    counts = torch.bincount(inverse)
    places = torch.arange(len(inverse), device=x.device)
    first = places.new_zeros(len(counts)).scatter_reduce(
        0, inverse, places, "amin", include_self=False
    )
    if not ctx.flag("sorted", True):
        order = first.argsort()
        first, counts, inverse = first[order], counts[order], order.argsort()[inverse]
    y = from_movable(movable(x).index_select(along, first), x.dtype)
    return y, first, inverse, counts


@onnx_op("OneHot", since=9, host=(1,))
def one_hot(ctx: Context, indices: Tensor, depth: Number, values: Tensor) -> Tensor:
    """``values[1]`` at the index along a new axis, ``values[0]`` elsewhere.

    Negative indices count from the end since opset 11. Indices beyond the axis have no 1.
    """
    axis, count = ctx.integer("axis", -1), int(number(depth))
    index = indices.to(torch.int64)
    if ctx.opset >= 11:
        index = positive(index, count)
    index = index.unsqueeze(axis)
    shape = [1] * index.dim()
    shape[axis] = count
    off, on = values.unbind()
    return torch.where(index == torch.arange(count, device=index.device).reshape(shape), on, off)


@onnx_op("ReverseSequence", since=10)
def reverse_sequence(ctx: Context, x: Tensor, lengths: Tensor) -> Tensor:
    """Reverses the beginning of every sequence of a batch; what follows stays."""
    time_first = ctx.integer("time_axis", 0) == 0
    sequences = x.transpose(0, 1) if time_first else x
    batch, time = (torch.arange(size, device=x.device) for size in sequences.shape[:2])
    ends = lengths.unsqueeze(1)
    order = torch.where(time < ends, ends - 1 - time, time)
    y = sequences[batch.unsqueeze(1), order]
    return y.transpose(0, 1) if time_first else y
