"""Padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op


@onnx_op("Pad", since=2)
def pad_attributes(ctx: Context, x: Tensor) -> Tensor:
    """Pads by amounts given as attributes."""
    return pad(ctx, x, ctx.integers("pads") or (), ctx.real("value"))


@onnx_op("Pad", since=11, host=(1, 3), host_if_known=(2,))
def pad(
    ctx: Context,
    x: Tensor,
    pads: Sequence[int],
    value: float | list[float] | Tensor | None = None,
    axes: Sequence[int] | None = None,
) -> Tensor:
    """Pads axes at both ends; negative amounts crop."""
    chosen = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
    count = len(chosen)
    amounts = {axis: (pads[i], pads[i + count]) for i, axis in enumerate(chosen)}
    mode = ctx.text("mode", "constant")
    if mode == "constant":
        ordered = [n for axis in reversed(range(x.dim())) for n in amounts.get(axis, (0, 0))]
        if isinstance(value, Tensor):
            inside = functional.pad(torch.ones_like(x, dtype=torch.bool), ordered)
            return torch.where(inside, functional.pad(x, ordered), value.reshape(()))
        fill = value[0] if isinstance(value, list) else value
        return functional.pad(x, ordered, value=fill if fill is not None else 0)
    for axis, (begin, end) in amounts.items():
        if begin or end:
            index = _source(mode, x.shape[axis], begin, end, x.device)
            x = x.index_select(axis, index)
    return x


def _source(mode: str, size: int, begin: int, end: int, device: torch.device) -> Tensor:
    """Which element each place of the padded axis copies."""
    place = torch.arange(-begin, size + end, device=device)
    if mode == "edge":
        return place.clamp(0, size - 1)
    if mode == "wrap":
        return place % size
    if mode == "reflect":
        period = max(1, 2 * (size - 1))
        folded = place % period
        return torch.where(folded >= size, period - folded, folded)
    raise ValueError(f"unknown mode '{mode}'")


@onnx_op("CenterCropPad", since=18, host=(1,))
def center_crop_pad(ctx: Context, x: Tensor, shape: Sequence[int]) -> Tensor:
    """Crops or pads with zeros around the middle; of an odd number one more is at the end."""
    axes = [axis % x.dim() for axis in ctx.integers("axes") or range(x.dim())]
    pads = [0] * (2 * x.dim())
    for axis, size in zip(axes, shape, strict=True):
        missing = size - x.shape[axis]
        begin = abs(missing) // 2 * (1 if missing > 0 else -1)
        place = 2 * (x.dim() - 1 - axis)
        pads[place : place + 2] = [begin, missing - begin]
    return functional.pad(x, pads)
