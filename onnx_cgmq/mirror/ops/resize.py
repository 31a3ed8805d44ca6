"""Resize and Upsample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.resampling import (
    COORDINATE_MODES,
    NEAREST_MODES,
    Axis,
    Filter,
    coordinates,
    nearest,
    single,
    weights,
)

_HALF_PIXEL = frozenset({"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"})
_INTERPOLATE = {1: "linear", 2: "bilinear", 3: "trilinear"}
_COORDINATES = "coordinate_transformation_mode"


def _check(ctx: Context) -> str | None:
    """Refuses unknown modes, and those for which runtimes round differently."""
    mode = ctx.text("mode", "nearest")
    known = {
        "mode": (mode, {"nearest", "linear", "cubic"}),
        _COORDINATES: (ctx.text(_COORDINATES, "half_pixel"), COORDINATE_MODES),
        "nearest_mode": (ctx.text("nearest_mode", "floor"), NEAREST_MODES),
    }
    for name, (value, values) in known.items():
        if value not in values:
            return f"{name} '{value}'"
    dtype = ctx.input_type(0)
    if mode != "nearest" and dtype is not None and not dtype.is_floating_point():
        return f"mode '{mode}' of {dtype.name}, which runtimes round differently; cast to FLOAT"
    if mode == "nearest" and ctx.flag("antialias"):
        return "antialias with mode 'nearest'"
    return None


@onnx_op("Upsample", since=7, check=_check)
def upsample_attribute(ctx: Context, x: Tensor) -> Tensor:
    """Enlarges by scales given as an attribute."""
    return upsample(ctx, x, ctx.attributes["scales"])


@onnx_op("Upsample", since=9, host=(1,), check=_check)
@onnx_op("Resize", since=10, host=(1,), check=_check)
def upsample(ctx: Context, x: Tensor, scales: Sequence[float]) -> Tensor:
    """Scales an image whose pixels lie at their upper left corners.

    Opsets before 11 don't say which pixel is the nearest; as in onnxruntime it is the next one when
    the image gets smaller, else the previous one.
    """
    return _resize(ctx, x, _scaled(ctx, x, scales, None), "asymmetric", "simple")


@onnx_op("Resize", since=11, host=(1, 2, 3), check=_check)
def resize(
    ctx: Context,
    x: Tensor,
    roi: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """Scales an image, or brings it to a size; empty inputs count as omitted.

    ``align_corners`` divides by the output's integer length, as the text of the standard,
    onnxruntime and torch do; two of the standard's cases use the fraction before rounding.
    Gradients reach the image, not the region, the scales or the sizes.

    Raises:
        ValueError: If neither or both of ``scales`` and ``sizes`` are given, or not one of them or
            of ``roi`` for every axis.
    """
    mode = ctx.text(_COORDINATES, "half_pixel")
    region = (roi or None) if mode == "tf_crop_and_resize" else None
    if bool(scales) == bool(sizes):
        raise ValueError("exactly one of 'scales' and 'sizes' must be given")
    axes = _scaled(ctx, x, scales, region) if scales else _sized(ctx, x, sizes or (), region)
    return _resize(ctx, x, axes, mode, ctx.text("nearest_mode", "round_prefer_floor"))


def _chosen(ctx: Context, x: Tensor, values: Sequence[Any], name: str) -> list[int]:
    axes = [axis % x.dim() for axis in ctx.integers("axes") or range(x.dim())]
    if len(values) != len(axes):
        raise ValueError(f"{len(values)} {name} for {len(axes)} axes")
    return axes


def _regions(region: Sequence[float] | None, count: int) -> list[tuple[float, float]]:
    if region is None:
        return [(0.0, 1.0)] * count
    if len(region) != 2 * count:
        raise ValueError(f"{len(region)} values in 'roi' for {count} axes")
    return list(zip(region[:count], region[count:], strict=True))


def _scaled(
    ctx: Context, x: Tensor, scales: Sequence[float], region: Sequence[float] | None
) -> list[Axis]:
    """The axes for given scales; as in all runtimes, the lengths do not depend on the region."""
    axes = _chosen(ctx, x, scales, "scales")
    regions = _regions(region, len(axes))
    return [
        Axis(axis, x.shape[axis], int(single(x.shape[axis] * scale)), scale, *bounds)
        for axis, scale, bounds in zip(axes, scales, regions, strict=True)
    ]


def _sized(
    ctx: Context, x: Tensor, sizes: Sequence[int], region: Sequence[float] | None
) -> list[Axis]:
    """The axes for given sizes, under ``keep_aspect_ratio_policy``."""
    axes = _chosen(ctx, x, sizes, "sizes")
    regions = _regions(region, len(axes))
    lengths = list(sizes)
    scales = [single(n / x.shape[a]) if n else 1.0 for a, n in zip(axes, sizes, strict=True)]
    policy = ctx.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        scales = [min(scales) if policy == "not_larger" else max(scales)] * len(axes)
        lengths = [
            math.floor(single(s * x.shape[a]) + 0.5) for a, s in zip(axes, scales, strict=True)
        ]
    return [
        Axis(axis, x.shape[axis], length, scale, *bounds)
        for axis, length, scale, bounds in zip(axes, lengths, scales, regions, strict=True)
    ]


def _resize(ctx: Context, x: Tensor, axes: list[Axis], mode: str, rounding: str) -> Tensor:
    axes = [a for a in axes if (a.size, a.scale, a.start, a.end) != (a.length, 1.0, 0.0, 1.0)]
    _refuse_disputed(ctx, axes)
    empty = any(a.length == 0 for a in axes)
    if empty or not axes:
        shape = list(x.shape)
        for a in axes:
            shape[a.axis] = a.length
        return x.new_zeros(shape) if empty else x
    spatial = x.dim() in (3, 4, 5) and all(a.axis >= 2 for a in axes)
    if ctx.text("mode", "nearest") == "nearest":
        if spatial and x.dtype == torch.float32 and _repeats(axes, mode, rounding):
            return functional.interpolate(x, size=_lengths(x, axes), mode="nearest")
        y = x
        for a in axes:
            index = nearest(a, coordinates(a, mode, x.device), rounding)
            y = y.index_select(a.axis, index)
        return _extrapolated(ctx, x, y, axes, mode)
    kind = Filter(
        cubic=ctx.text("mode") == "cubic",
        cubic_coefficient=ctx.real("cubic_coeff_a", -0.75),
        antialias=ctx.flag("antialias") and any(a.scale < 1 for a in axes),
        exclude_outside=ctx.flag("exclude_outside"),
    )
    if not x.is_floating_point():
        raise ValueError(f"can't interpolate {x.dtype}; cast the input to a float type")
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    fused = _fused(y, axes, mode, kind) if spatial else None
    if fused is None:
        for a in axes:
            matrix = weights(a, coordinates(a, mode, x.device), kind).to(y.dtype)
            y = functional.linear(y.movedim(a.axis, -1), matrix).movedim(-1, a.axis)
        fused = _extrapolated(ctx, x, y, axes, mode)
    return fused.to(x.dtype)


def _refuse_disputed(ctx: Context, axes: list[Axis]) -> None:
    """Refuses cases that the standard resamples but onnxruntime copies."""
    for a in axes:
        cropped = a.scale == 1.0 and a.size == a.length
        if cropped or (ctx.flag("antialias") and a.size == a.length):
            raise ValueError(
                f"axis {a.axis} keeps its length {a.size} but not its pixels (scale {a.scale:g}, "
                f"region {a.start:g} to {a.end:g}), which onnxruntime ignores"
            )


def _lengths(x: Tensor, axes: list[Axis]) -> list[int]:
    """Spatial lengths of the output."""
    lengths = list(x.shape[2:])
    for a in axes:
        lengths[a.axis - 2] = a.length
    return lengths


def _repeats(axes: list[Axis], mode: str, rounding: str) -> bool:
    """Whether every pixel is repeated, and torch's product by ``1 / factor`` never rounds down."""
    middle = mode in _HALF_PIXEL and rounding.startswith("round")
    corner = mode == "asymmetric" and rounding in ("floor", "simple")
    return (middle or corner) and all(
        a.factor is not None and a.length > 1 and single(1 / a.factor) * a.factor >= 1 for a in axes
    )


def _fused(x: Tensor, axes: list[Axis], mode: str, kind: Filter) -> Tensor | None:
    """The result of torch's own linear kernels where they compute the same, else ``None``."""
    if kind.cubic or kind.antialias:
        return None
    name = _INTERPOLATE[x.dim() - 2]
    centred = mode in _HALF_PIXEL and all(a.is_exact and a.length > 1 for a in axes)
    if centred or mode == "align_corners":
        corners = mode == "align_corners"
        return functional.interpolate(x, _lengths(x, axes), mode=name, align_corners=corners)
    if mode == "asymmetric" and all(a.factor for a in axes):
        # Up to the last input pixel this is align_corners; behind it, the edge is repeated.
        repeats = [0] * (2 * (x.dim() - 2))
        inner = list(x.shape[2:])
        for a in axes:
            factor = a.factor or 1
            inner[a.axis - 2] = (a.size - 1) * factor + 1
            repeats[2 * (x.dim() - 1 - a.axis) + 1] = factor - 1
        y = functional.interpolate(x, inner, mode=name, align_corners=True)
        return functional.pad(y, repeats, mode="replicate")
    return None


def _extrapolated(ctx: Context, x: Tensor, y: Tensor, axes: list[Axis], mode: str) -> Tensor:
    """The result with pixels from outside the input replaced, where the mode says so."""
    if mode != "tf_crop_and_resize":
        return y
    for a in axes:
        position = coordinates(a, mode, x.device)
        outside = (position < 0) | (position > a.size - 1)
        shape = [1] * x.dim()
        shape[a.axis] = a.length
        y = y.masked_fill(outside.reshape(shape), ctx.real("extrapolation_value"))
    return y
