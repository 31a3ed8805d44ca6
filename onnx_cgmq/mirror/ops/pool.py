"""Pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.windows import Window, pad_window, window_of

_MAX_POOL: dict[int, Any] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_AVG_POOL: dict[int, Any] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def _check_window(ctx: Context) -> str | None:
    rank = len(ctx.integers("kernel_shape") or ())
    if rank not in _MAX_POOL:
        return f"{rank} spatial axes (1 to 3 are supported)"
    auto_pad = ctx.text("auto_pad", "NOTSET")
    if ctx.flag("ceil_mode") and auto_pad == "VALID":
        return "auto_pad VALID with ceil_mode, on which runtimes disagree; set pads instead"
    if auto_pad.startswith("SAME") and any(d > 1 for d in ctx.integers("dilations") or ()):
        return f"auto_pad {auto_pad} with dilations, on which runtimes disagree; set pads instead"
    return None


def _fits_torch(window: Window) -> bool:
    """Whether torch's own padding gives the window exactly."""
    half = all(2 * b <= k for b, k in zip(window.begin, window.kernel, strict=True))
    return window.symmetric and half


@onnx_op("MaxPool", check=_check_window)
def max_pool(ctx: Context, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Largest value under the window, and where it is in the whole tensor if asked for."""
    kernel = ctx.integers("kernel_shape") or ()
    size = tuple(x.shape[2:])
    window = window_of(ctx, size, kernel, ceil_mode=ctx.flag("ceil_mode"))
    values = x if x.dtype.is_floating_point else x.to(torch.float32)  # exact for 8-bit codes
    padding: tuple[int, ...] = (0,) * len(size)
    padded = size
    if _fits_torch(window):
        padding = window.begin
    else:
        values = pad_window(values, window, -torch.inf)
        padded = tuple(values.shape[2:])
    indexed = ctx.wants(1)
    result = _MAX_POOL[len(size)](
        values, kernel, window.stride, padding, window.dilation, False, indexed
    )
    if not indexed:
        y: Tensor = result
        return y.to(x.dtype)
    y, flat = result
    if padded != size:
        flat = _unpadded(flat, padded, size, window.begin)
    return y.to(x.dtype), _global_index(flat, size, column_major=ctx.flag("storage_order"))


def _unpadded(flat: Tensor, padded: tuple[int, ...], size: tuple[int, ...], begin: Any) -> Tensor:
    """Flat indices into the padded plane as flat indices into the plane itself."""
    result = torch.zeros_like(flat)
    for axis in range(len(size)):
        inner = _product(padded[axis + 1 :])
        coordinate = flat // inner % padded[axis] - begin[axis]
        result = result + coordinate * _product(size[axis + 1 :])
    return result


def _global_index(flat: Tensor, size: tuple[int, ...], *, column_major: bool) -> Tensor:
    """Flat indices into each plane as flat indices into the whole ``[N, C, ...]`` tensor."""
    if column_major:
        result = torch.zeros_like(flat)
        for axis in range(len(size)):
            coordinate = flat // _product(size[axis + 1 :]) % size[axis]
            result = result + coordinate * _product(size[:axis])
        flat = result
    planes = torch.arange(flat.shape[0] * flat.shape[1], device=flat.device)
    planes = planes.reshape(flat.shape[0], flat.shape[1], *(1,) * len(size))
    return flat + planes * _product(size)


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


@onnx_op("AveragePool", check=_check_window)
def average_pool(ctx: Context, x: Tensor) -> Tensor:
    """Mean under the window; padding counts if ``count_include_pad``, overhang never does."""
    kernel = ctx.integers("kernel_shape") or ()
    window = window_of(ctx, x.shape[2:], kernel, ceil_mode=ctx.flag("ceil_mode"))
    counts_pads = ctx.flag("count_include_pad")
    if _fits_torch(window) and all(d == 1 for d in window.dilation):
        y: Tensor = _AVG_POOL[len(kernel)](
            x, kernel, window.stride, window.begin, False, counts_pads
        )
        return y
    counted = x.new_ones((1, 1, *x.shape[2:]))
    if counts_pads:
        sides = zip(window.begin, window.end, strict=True)
        counted = functional.pad(
            counted, [n for side in reversed(list(sides)) for n in side], value=1.0
        )
        overhang = [n for o in reversed(window.overhang) for n in (0, o)]
        counted = functional.pad(counted, overhang)
    else:
        counted = pad_window(counted, window, 0.0)
    return _window_sum(pad_window(x, window, 0.0), window) / _window_sum(counted, window)


def _window_sum(x: Tensor, window: Window) -> Tensor:
    """Sum under every window position of a padded tensor, for any dilation."""
    rank = len(window.kernel)
    for axis, (k, s, d) in enumerate(
        zip(window.kernel, window.stride, window.dilation, strict=True)
    ):
        x = x.unfold(2 + axis, d * (k - 1) + 1, s)[..., ::d]
    return x.sum(dim=tuple(range(-rank, 0)))


@onnx_op("LpPool", check=_check_window)
def lp_pool(ctx: Context, x: Tensor) -> Tensor:
    """p-norm under the window."""
    kernel = ctx.integers("kernel_shape") or ()
    window = window_of(ctx, x.shape[2:], kernel, ceil_mode=ctx.flag("ceil_mode"))
    p = ctx.integer("p", 2)
    total = _window_sum(pad_window(x.abs().pow(p), window, 0.0), window)
    positive = total > 0  # the root has no gradient at zero
    return total.where(positive, 1).pow(1.0 / p).where(positive, 0)


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@onnx_op("GlobalAveragePool")
def global_average_pool(ctx: Context, x: Tensor) -> Tensor:
    """Mean over all spatial axes."""
    return x.mean(dim=_spatial(x), keepdim=True)


@onnx_op("GlobalMaxPool")
def global_max_pool(ctx: Context, x: Tensor) -> Tensor:
    """Maximum over all spatial axes."""
    return x.amax(dim=_spatial(x), keepdim=True)


@onnx_op("GlobalLpPool")
def global_lp_pool(ctx: Context, x: Tensor) -> Tensor:
    """p-norm over all spatial axes."""
    p, axes = ctx.integer("p", 2), _spatial(x)
    norm: Tensor = torch.linalg.vector_norm(x, p, dim=axes, keepdim=True)
    return norm
