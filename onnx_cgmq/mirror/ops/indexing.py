"""Operators that pick, join and place parts of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import from_movable, movable
from onnx_cgmq.mirror.core.registry import Context, onnx_op


@onnx_op("Concat", since=4)
def concat(ctx: Context, *xs: Tensor) -> Tensor:
    """Joins along an axis."""
    return torch.cat(xs, dim=ctx.integer("axis"))


def _parts(ctx: Context, x: Tensor, sizes: Sequence[int] | None) -> tuple[Tensor, ...]:
    axis = ctx.integer("axis")
    if sizes is None:
        count = ctx.integer("num_outputs", ctx.output_count)
        chunk = -(-x.shape[axis] // count)
        sizes = [chunk] * (count - 1) + [x.shape[axis] - chunk * (count - 1)]
    return torch.split(x, list(sizes), dim=axis)


@onnx_op("Split", since=2)
def split_attribute(ctx: Context, x: Tensor) -> tuple[Tensor, ...]:
    """Splits along an axis into sizes given as an attribute, else evenly."""
    return _parts(ctx, x, ctx.integers("split"))


@onnx_op("Split", since=13, host=(1,))
def split(ctx: Context, x: Tensor, sizes: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """Splits along an axis into the sizes given, else evenly, the last part being smaller."""
    return _parts(ctx, x, sizes)


@onnx_op("Slice", since=1)
def slice_attributes(ctx: Context, x: Tensor) -> Tensor:
    """Slices between bounds given as attributes."""
    return slice_(
        ctx, x, ctx.integers("starts") or (), ctx.integers("ends") or (), ctx.integers("axes")
    )


@onnx_op("Slice", since=10, host=(1, 2, 3, 4))
def slice_(
    ctx: Context,
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:
    """Slices like numpy, backwards too."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    index = [slice(None)] * x.dim()
    flipped = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken = range(*slice(start, end, step).indices(x.shape[axis]))
        if step < 0:
            taken = taken[::-1]
            flipped.append(axis)
        index[axis] = slice(taken.start, max(taken.start, taken.stop), taken.step)
    y = x[tuple(index)]
    return from_movable(movable(y).flip(flipped), x.dtype) if flipped else y


@onnx_op("Gather")
def gather(ctx: Context, x: Tensor, indices: Tensor) -> Tensor:
    """Slices along an axis at the indices; negative ones count from the end."""
    axis = ctx.integer("axis") % x.dim()
    flat = positive(indices, x.shape[axis]).reshape(-1)
    y = from_movable(movable(x).index_select(axis, flat), x.dtype)
    return y.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def positive(indices: Tensor, size: int) -> Tensor:
    """Indices along an axis as int64; negative ones count from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@onnx_op("GatherElements", since=11)
def gather_elements(ctx: Context, x: Tensor, indices: Tensor) -> Tensor:
    """Elements along an axis, one index for each."""
    axis = ctx.integer("axis")
    index = positive(indices, x.shape[axis])
    return from_movable(movable(x).gather(axis, index), x.dtype)


@onnx_op("GatherND", since=11)
def gather_nd(ctx: Context, x: Tensor, indices: Tensor) -> Tensor:
    """Slices at index tuples, after ``batch_dims`` shared axes."""
    batch = ctx.integer("batch_dims")
    depth = indices.shape[-1]
    shared = indices.shape[:batch]
    index: list[Tensor] = []
    for axis, size in enumerate(shared):
        shape = [1] * (indices.dim() - 1)
        shape[axis] = size
        index.append(torch.arange(size, device=x.device).reshape(shape))
    index += [positive(indices[..., i], x.shape[batch + i]) for i in range(depth)]
    return x[tuple(index)]


@onnx_op("TopK", since=1)
def top_k_attribute(ctx: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest elements along an axis, ``k`` given as an attribute."""
    return top_k(ctx, x, [ctx.integer("k")])


@onnx_op("TopK", since=10, host=(1,))
def top_k(ctx: Context, x: Tensor, k: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The largest (or smallest) elements along an axis, sorted, and their indices.

    Of equal elements those with the lower index come first.
    """
    axis = ctx.integer("axis", -1)
    largest = ctx.flag("largest", True)
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k[0]), indices.narrow(axis, 0, k[0])


@onnx_op("Trilu", since=14, host=(1,))
def trilu(ctx: Context, x: Tensor, k: int | list[int] | None = None) -> Tensor:
    """The upper or lower triangle of matrices."""
    offset = (k[0] if isinstance(k, list) else k) or 0
    run = torch.triu if ctx.flag("upper", True) else torch.tril
    return from_movable(run(movable(x), offset), x.dtype)
