"""Operators that only move values, and those that ask for shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op


@onnx_op("Identity")
def identity(ctx: Context, x: Tensor) -> Tensor:
    """The input."""
    return x


@onnx_op("Reshape", since=5, host=(1,))
def reshape(ctx: Context, x: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape; 0 copies a size unless ``allowzero``, -1 takes the rest."""
    if ctx.flag("allowzero"):
        sizes = list(shape)
    else:
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return x.reshape(sizes)


@onnx_op("Flatten")
def flatten(ctx: Context, x: Tensor) -> Tensor:
    """A matrix with the axes before ``axis`` as rows."""
    axis = ctx.integer("axis", 1)
    axis += x.dim() if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@onnx_op("Transpose")
def transpose(ctx: Context, x: Tensor) -> Tensor:
    """Permutes axes; reverses them by default."""
    return x.permute(ctx.integers("perm") or tuple(reversed(range(x.dim()))))


@onnx_op("Squeeze", since=1)
def squeeze_attribute(ctx: Context, x: Tensor) -> Tensor:
    """Removes axes of length 1, given as an attribute."""
    return squeeze(ctx, x, ctx.integers("axes"))


@onnx_op("Squeeze", since=13, host=(1,))
def squeeze(ctx: Context, x: Tensor, axes: Sequence[int] | int | None = None) -> Tensor:
    """Removes axes of length 1: those given, else all."""
    chosen = [i for i, n in enumerate(x.shape) if n == 1] if axes is None else _listed(axes)
    wrong = [axis for axis in chosen if x.shape[axis] != 1]
    if wrong:
        raise ValueError(f"axes {wrong} of shape {tuple(x.shape)} don't have length 1")
    return x.squeeze(tuple(chosen)) if chosen else x


@onnx_op("Unsqueeze", since=1)
def unsqueeze_attribute(ctx: Context, x: Tensor) -> Tensor:
    """Inserts axes of length 1, given as an attribute."""
    return unsqueeze(ctx, x, ctx.integers("axes") or ())


@onnx_op("Unsqueeze", since=13, host=(1,))
def unsqueeze(ctx: Context, x: Tensor, axes: Sequence[int] | int) -> Tensor:
    """Inserts axes of length 1, counted in the output."""
    chosen = _listed(axes)
    rank = x.dim() + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _listed(axes: Sequence[int] | int) -> list[int]:
    """Axes as a list; the standard's own definitions give a single one as a scalar."""
    return [axes] if isinstance(axes, int) else list(axes)


@onnx_op("Expand", since=8, host=(1,))
def expand(ctx: Context, x: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcasts both ways."""
    rank = max(x.dim(), len(shape))
    own = (1,) * (rank - x.dim()) + tuple(x.shape)
    other = (1,) * (rank - len(shape)) + tuple(shape)
    return x.expand([b if a == 1 else a for a, b in zip(own, other, strict=True)])


@onnx_op("Tile", since=6, host=(1,))
def tile(ctx: Context, x: Tensor, repeats: Sequence[int]) -> Tensor:
    """Repeats along every axis."""
    return x.repeat(tuple(repeats))


@onnx_op("Shape")
def shape_of(ctx: Context, x: Tensor) -> Tensor:
    """The shape, or a part of it, int64."""
    sizes = tuple(x.shape)
    end: int | None = ctx.integer("end") if ctx.has("end") else None
    return torch.tensor(sizes[ctx.integer("start") : end], dtype=torch.int64, device=x.device)


@onnx_op("Size")
def size_of(ctx: Context, x: Tensor) -> Tensor:
    """Number of elements, int64."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@onnx_op("DepthToSpace")
def depth_to_space(ctx: Context, x: Tensor) -> Tensor:
    """Moves blocks of channels to space."""
    block = ctx.integer("blocksize")
    n, _, h, w = x.shape
    if ctx.text("mode", "DCR") == "DCR":
        y = x.reshape(n, block, block, -1, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, -1, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, -1, h * block, w * block)


@onnx_op("SpaceToDepth")
def space_to_depth(ctx: Context, x: Tensor) -> Tensor:
    """Moves blocks of space to channels."""
    block = ctx.integer("blocksize")
    n, c, h, w = x.shape
    mode = ctx.text("mode", "DCR")
    y = x.reshape(n, c, h // block, block, w // block, block)
    y = y.permute(0, 3, 5, 1, 2, 4) if mode == "DCR" else y.permute(0, 1, 3, 5, 2, 4)
    return y.reshape(n, c * block * block, h // block, w // block)
