"""RoiAlign and MaxRoiPool: parts of feature maps brought to one size.

Every output pixel is a weighted sum, or the maximum, over a bag of input pixels: torch's
``embedding_bag`` on the pixels as rows, which holds no copy of the feature map per region.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op


@dataclass(frozen=True)
class _Taps:
    """Pixels along one axis, ``[regions, output pixels, taps]``.

    Attributes:
        index: Which pixels.
        weight: Their weights.
        given: Which of these pixels exist, because some regions have fewer than others.
    """

    index: Tensor
    weight: Tensor
    given: Tensor


def _check(ctx: Context) -> str | None:
    mode = ctx.text("mode", "avg")
    return None if mode in ("avg", "max") else f"mode '{mode}'"


@onnx_op("RoiAlign", since=10, check=_check)
def roi_align_unshifted(ctx: Context, x: Tensor, rois: Tensor, images: Tensor) -> Tensor:
    """RoiAlign whose coordinates count from the edge of the first pixel."""
    return _align(ctx, x, rois, images, shift=0.0)


@onnx_op("RoiAlign", since=16, check=_check)
def roi_align(ctx: Context, x: Tensor, rois: Tensor, images: Tensor) -> Tensor:
    """Mean over interpolated samples, or as runtimes do it the maximum over their summands.

    Args:
        ctx: The node.
        x: Feature maps ``[N, C, H, W]``.
        rois: ``[R, 4]``: left, top, right, bottom; gradients reach them too.
        images: Which of the ``N`` maps each region is in.
    """
    centred = ctx.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    return _align(ctx, x, rois, images, shift=0.5 if centred else 0.0)


def _align(ctx: Context, x: Tensor, rois: Tensor, images: Tensor, shift: float) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    left, top, right, bottom = (rois.to(dtype) * ctx.real("spatial_scale", 1.0) - shift).unbind(1)
    width, height = right - left, bottom - top
    if shift == 0:
        width, height = width.clamp(min=1), height.clamp(min=1)
    sizes = (ctx.integer("output_height", 1), ctx.integer("output_width", 1))
    ratio = ctx.integer("sampling_ratio")
    rows = _interpolation(top, height, sizes[0], ratio, x.shape[2])
    columns = _interpolation(left, width, sizes[1], ratio, x.shape[3])
    index = _product_index(x, images, rows.index, columns.index)
    weight = (rows.weight[:, :, None, :, None] * columns.weight[:, None, :, None, :]).flatten(3)
    pixels = _pixels(x, dtype)
    if ctx.text("mode", "avg") == "avg":
        counts = rows.given.sum(-1)[:, :, None] * columns.given.sum(-1)[:, None, :] / 4
        weight = weight / counts.clamp(min=1)[..., None]
        y = functional.embedding_bag(
            index.flatten(0, 2), pixels, mode="sum", per_sample_weights=weight.flatten(0, 2)
        )
    else:
        given = (rows.given[:, :, None, :, None] & columns.given[:, None, :, None, :]).flatten(3)
        values = pixels[index] * weight[..., None]
        largest = values.masked_fill(~given[..., None], -torch.inf).amax(dim=3)
        y = largest.masked_fill(~given.any(-1)[..., None], 0)
    return _maps(y, x, len(rois), sizes)


def _interpolation(start: Tensor, size: Tensor, count: int, ratio: int, length: int) -> _Taps:
    """The two pixels around every sample, those of regions that need fewer left out.

    Args:
        start: Start of every region in pixels.
        size: Its size in pixels.
        count: Output pixels per region.
        ratio: Samples per output pixel, 0 for as many as it has input pixels.
        length: Number of input pixels.
    """
    step = size / count
    samples = torch.full_like(step, ratio) if ratio > 0 else step.detach().ceil()
    most = ratio if ratio > 0 else max(1, int(samples.max())) if len(samples) else 1
    number = torch.arange(most, dtype=step.dtype, device=step.device)
    place = (number + 0.5) * step[:, None] / samples.clamp(min=1)[:, None]
    bins = torch.arange(count, dtype=step.dtype, device=step.device) * step[:, None]
    position = start[:, None, None] + bins[:, :, None] + place[:, None, :]
    inside = (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    low = position.detach().floor()
    share = position - low
    index = torch.stack([low, (low + 1).clamp(max=length - 1)], dim=-1)
    weight = torch.stack([1 - share, share], dim=-1) * inside[..., None]
    given = (number < samples[:, None])[:, None, :, None].expand(weight.shape)
    return _Taps(index.to(torch.int64).flatten(2), (weight * given).flatten(2), given.flatten(2))


def _product_index(x: Tensor, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows of :func:`_pixels`: ``[regions, output height, output width, taps]``."""
    _, _, height, width = x.shape
    first = images.to(torch.int64)[:, None, None] * height
    return ((first + rows)[:, :, None, :, None] * width + columns[:, None, :, None, :]).flatten(3)


def _pixels(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels as rows of channels."""
    return x.to(dtype).permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _maps(rows: Tensor, x: Tensor, count: int, sizes: tuple[int, int]) -> Tensor:
    """Output pixels as rows of channels back to ``[regions, C, height, width]``."""
    return rows.reshape(count, *sizes, x.shape[1]).permute(0, 3, 1, 2).to(x.dtype)


@onnx_op("MaxRoiPool")
def max_roi_pool(ctx: Context, x: Tensor, rois: Tensor) -> Tensor:
    """Maximum over bins of pixels; bins outside the map are 0.

    Args:
        ctx: The node.
        x: Feature maps ``[N, C, H, W]``.
        rois: ``[R, 5]``: image, left, top, right, bottom, rounded to pixels and inclusive.
    """
    sizes = ctx.integers("pooled_shape") or (1, 1)
    scaled = rois[:, 1:].detach().to(torch.float32) * ctx.real("spatial_scale", 1.0)
    corners = scaled.sign() * (scaled.abs() + 0.5).floor()
    left, top, right, bottom = corners.unbind(1)
    rows, empty_rows = _bins(top, bottom, sizes[0], x.shape[2])
    columns, empty_columns = _bins(left, right, sizes[1], x.shape[3])
    index = _product_index(x, rois[:, 0], rows, columns)
    pixels = _pixels(x, torch.promote_types(x.dtype, torch.float32))
    y = functional.embedding_bag(index.flatten(0, 2), pixels, mode="max")
    empty = empty_rows[:, :, None] | empty_columns[:, None, :]
    return _maps(y.masked_fill(empty.reshape(-1, 1), 0), x, len(rois), (sizes[0], sizes[1]))


def _bins(start: Tensor, last: Tensor, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Pixels of every bin, the last one repeated in smaller bins, and which bins are empty."""
    step = ((last - start + 1).clamp(min=1) / count)[:, None]
    number = torch.arange(count, dtype=step.dtype, device=step.device)
    begin = ((number * step).floor() + start[:, None]).clamp(0, length)
    end = (((number + 1) * step).ceil() + start[:, None]).clamp(0, length)
    most = max(1, int((end - begin).max())) if len(start) else 1
    taps = begin[..., None] + torch.arange(most, device=step.device)
    index = torch.minimum(taps, end[..., None] - 1).clamp(0, length - 1)
    return index.to(torch.int64), end <= begin
