"""Resampling along one axis: where the output's pixels lie in the input, and what they weigh.

Coordinates are computed in float32 in the order of onnxruntime's own formulas, so that both round
the same way where a pixel lies just between two others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NEAREST_MODES = frozenset({"round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple"})
COORDINATE_MODES = frozenset(
    {
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    }
)

_SPLIT = 2.0**29 + 1.0  # a double has 29 bits more than a float
_TIE = 1e-6  # so close to the middle of two pixels, onnxruntime takes a position for the middle


@dataclass(frozen=True)
class Axis:
    """One axis that is resampled.

    Attributes:
        axis: Its index, not negative.
        size: Its length in the input.
        length: Its length in the output.
        scale: Output pixels per input pixel, a float32 value.
        start: Start of the region that is resampled, as a share of the axis.
        end: End of that region.
    """

    axis: int
    size: int
    length: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def is_exact(self) -> bool:
        """Whether the scale is the output's length over the input's, in float32."""
        return self.scale == single(self.length / self.size) if self.size else False

    @property
    def factor(self) -> int | None:
        """The scale, if it is an integer."""
        return int(self.scale) if self.is_exact and self.length % self.size == 0 else None


@dataclass(frozen=True)
class Filter:
    """How pixels are weighted.

    Attributes:
        cubic: Whether it is the cubic convolution kernel of Keys (1981), else the linear one.
        cubic_coefficient: Its parameter ``a``.
        antialias: Whether the kernel is stretched where the scale is below 1.
        exclude_outside: Whether pixels outside the input weigh nothing, else the edge is repeated.
    """

    cubic: bool = False
    cubic_coefficient: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False

    def kernel(self, distance: Tensor) -> Tensor:
        """Weight of a pixel by its distance."""
        d = distance.abs()
        if not self.cubic:
            return (1 - d).clamp(min=0)
        a = self.cubic_coefficient
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def single(value: float) -> float:
    """A double rounded to the nearest float32 (Veltkamp's splitting)."""
    split = value * _SPLIT
    return split - (split - value)


def coordinates(axis: Axis, mode: str, device: torch.device) -> Tensor:
    """Position of every output pixel on the input's axis, float32.

    Args:
        axis: The axis.
        mode: ``coordinate_transformation_mode`` of Resize.
        device: Where the result is wanted.
    """
    x = torch.arange(axis.length, dtype=torch.float32, device=device)
    last = axis.size - 1
    if mode == "asymmetric":
        return x / axis.scale
    if mode == "align_corners":
        return x * last / (axis.length - 1) if axis.length > 1 else torch.zeros_like(x)
    if mode == "tf_half_pixel_for_nn":
        return (x + 0.5) / axis.scale
    if mode == "tf_crop_and_resize":
        if axis.length == 1:
            return torch.full_like(x, 0.5 * (axis.start + axis.end) * last)
        reach = single(axis.end - axis.start)
        return x * reach * last / (axis.length - 1) + single(axis.start * last)
    if mode == "pytorch_half_pixel" and axis.length == 1:
        return torch.zeros_like(x)
    if mode == "half_pixel_symmetric":
        share = single(axis.length / single(axis.scale * axis.size))
        offset = single(axis.size / 2 * single(1 - share))
        exact = x.to(torch.float64)  # as onnxruntime does in this mode alone
        return (offset + (exact + 0.5) / axis.scale - 0.5).to(x.dtype)
    return (x + 0.5) / axis.scale - 0.5


def nearest(axis: Axis, x: Tensor, mode: str) -> Tensor:
    """Index of the input pixel that is taken for every output pixel.

    Args:
        axis: The axis.
        x: From :func:`coordinates`.
        mode: ``nearest_mode`` of Resize; ``simple`` is the rule of the opsets without one.
    """
    floor = x.floor()
    if mode == "simple":
        mode = "ceil" if axis.scale < 1 else "floor"
    if mode == "floor":
        index = floor
    elif mode == "ceil":
        index = x.ceil()
    elif mode == "round_prefer_floor":
        index = floor + (x - floor >= 0.5 + _TIE)
    else:
        index = floor + (x - floor > 0.5 - _TIE)
    return index.clamp(0, axis.size - 1).to(torch.int64)


def weights(axis: Axis, x: Tensor, kind: Filter) -> Tensor:
    """The matrix ``[length, size]`` of the weight of every input pixel for every output pixel.

    Args:
        axis: The axis.
        x: From :func:`coordinates`.
        kind: How pixels are weighted.
    """
    stretch = min(axis.scale, 1.0) if kind.antialias else 1.0
    support = (2 if kind.cubic else 1) / stretch
    taps = 2 * math.ceil(support)
    first = x.floor() - (taps // 2 - 1)
    index = first[:, None] + torch.arange(taps, dtype=x.dtype, device=x.device)
    weight = kind.kernel((index - x[:, None]) * stretch)
    if kind.exclude_outside:
        weight = weight * ((index >= 0) & (index < axis.size))
    weight = weight / weight.sum(dim=1, keepdim=True)
    index = index.clamp(0, axis.size - 1).to(torch.int64)
    return weight.new_zeros(axis.length, axis.size).scatter_add(1, index, weight)
