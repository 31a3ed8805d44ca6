"""GridSample and AffineGrid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.resampling import Filter

_MODES = {"bilinear": "linear", "bicubic": "cubic"}  # as opsets before 20 name them
_PADDINGS = ("zeros", "border", "reflection")
_FUSED = {(2, "linear"): "bilinear", (3, "linear"): "bilinear", (2, "cubic"): "bicubic"}


def _check(ctx: Context) -> str | None:
    mode, padding = _mode(ctx), ctx.text("padding_mode", "zeros")
    if mode not in ("nearest", "linear", "cubic"):
        return f"mode '{mode}'"
    return None if padding in _PADDINGS else f"padding_mode '{padding}'"


def _mode(ctx: Context) -> str:
    mode = ctx.text("mode", "linear")
    return _MODES.get(mode, mode)


@onnx_op("GridSample", since=16, check=_check)
def grid_sample(ctx: Context, x: Tensor, grid: Tensor) -> Tensor:
    """Samples an image at the positions of a grid.

    The last axis of the grid has coordinates from -1 to 1, that of the innermost axis first.

    Integers are interpolated as floats and cut off, as the standard says. With cubic interpolation,
    padding applies to each of the pixels around a position, as in onnxruntime and torch.
    """
    mode, padding = _mode(ctx), ctx.text("padding_mode", "zeros")
    corners = ctx.flag("align_corners")
    rank = x.dim() - 2
    fine = torch.float32 if x.is_floating_point() else torch.float64
    dtype = torch.promote_types(torch.promote_types(x.dtype, grid.dtype), fine)
    if (rank, mode) in _FUSED:
        y = functional.grid_sample(
            x.to(dtype), grid.to(dtype), _FUSED[rank, mode], padding, corners
        )
        return y.to(x.dtype)
    positions = [
        _denormalized(grid[..., rank - 1 - axis], size, corners)
        for axis, size in enumerate(x.shape[2:])
    ]
    return _sampled(x, positions, mode, padding, corners)


def at_positions(x: Tensor, positions: list[Tensor]) -> Tensor:
    """Linear interpolation between pixels, which are zero outside the image.

    Args:
        x: Image ``[N, C, ...]``.
        positions: In pixels, one ``[N, ...]`` tensor of the type of ``x`` per axis.

    Returns:
        ``[N, C, ...]`` with the positions' axes.
    """
    if len(positions) not in (2, 3) or positions[0].dim() != len(positions) + 1:
        return _sampled(x, positions, "linear", "zeros", corners=False)
    sides = [
        (2 * position + 1) / size - 1 for position, size in zip(positions, x.shape[2:], strict=True)
    ]
    grid = torch.stack(sides[::-1], dim=-1)
    return functional.grid_sample(x, grid, "bilinear", "zeros", align_corners=False)


def _denormalized(position: Tensor, size: int, corners: bool) -> Tensor:
    """Positions in pixels: -1 and 1 are the outer pixels' centres (``corners``) or edges."""
    position = position.to(torch.promote_types(position.dtype, torch.float32))
    return (position + 1) / 2 * (size - 1) if corners else ((position + 1) * size - 1) / 2


def _sampled(x: Tensor, positions: list[Tensor], mode: str, padding: str, corners: bool) -> Tensor:
    """The image at positions in pixels, one ``[N, ...]`` tensor per axis, for any rank."""
    shape = positions[0].shape
    index = torch.zeros((shape[0], shape[1:].numel(), 1), dtype=torch.int64, device=x.device)
    weight = torch.ones_like(index, dtype=positions[0].dtype)
    for position, size in zip(positions, x.shape[2:], strict=True):
        taps, weights = _taps(position.flatten(1), mode)
        if padding == "zeros":
            weights = weights * ((taps >= 0) & (taps < size))
        elif padding == "reflection":
            taps = _reflected(taps, size, corners)
        taps = taps.clamp(0, size - 1)
        index = (index[..., None] * size + taps[..., None, :]).flatten(2)
        weight = (weight[..., None] * weights[..., None, :]).flatten(2)
    pixels = x.flatten(2)
    wanted = index.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    values = pixels.gather(2, wanted).reshape(*x.shape[:2], *index.shape[1:])
    if mode == "nearest":
        y = values[..., 0].where(weight[:, None, :, 0] > 0, 0)
    else:
        y = (values * weight[:, None]).sum(-1)
    return y.to(x.dtype).reshape(*x.shape[:2], *shape[1:])


def _taps(position: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Pixels around positions along one axis, and their weights, both with a last axis for them."""
    if mode == "nearest":
        nearest = position.round()[..., None]
        return nearest.to(torch.int64), torch.ones_like(nearest)
    cubic = mode == "cubic"
    reach = 2 if cubic else 1
    around = torch.arange(1 - reach, 1 + reach, device=position.device)
    taps = position.detach().floor()[..., None] + around
    weights = Filter(cubic=cubic).kernel(taps - position[..., None])
    return taps.to(torch.int64), weights


def _reflected(index: Tensor, size: int, corners: bool) -> Tensor:
    """Indices outside an axis mirrored at its outer pixels' centres (``corners``) or edges."""
    if corners:
        period = max(2 * (size - 1), 1)
        index = index % period
        return torch.minimum(index, period - index)
    index = index % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


@onnx_op("AffineGrid", since=20, host=(1,))
def affine_grid(ctx: Context, theta: Tensor, size: Sequence[int]) -> Tensor:
    """The grid of an image of a size ``[N, C, ...]`` under affine maps.

    Raises:
        ValueError: If an axis has one pixel and that is at both its corners: onnxruntime puts it at
            the end, the standard's reference at the start, torch in the middle.
    """
    corners = ctx.flag("align_corners")
    if corners and 1 in size[2:]:
        raise ValueError("one pixel along an axis with align_corners, where runtimes disagree")
    dtype = torch.promote_types(theta.dtype, torch.float32)
    lines = []
    for n in size[2:]:
        end = 1.0 if corners else 1 - 1 / n
        lines.append(torch.linspace(-end, end, n, dtype=dtype, device=theta.device))
    meshes = torch.meshgrid(*lines, indexing="ij")
    points = torch.stack([*reversed(meshes), torch.ones_like(meshes[0])], dim=-1)
    grid = points.flatten(0, -2) @ theta.to(dtype).mT
    return grid.to(theta.dtype).reshape(theta.shape[0], *size[2:], len(lines))
