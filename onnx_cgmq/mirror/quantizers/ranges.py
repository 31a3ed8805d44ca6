"""Fits the range of every width by least squared error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnx_cgmq.contract.bits import (
    INTEGER_KERNEL_BITS,
    Granularity,
    GridForm,
    code_range,
    intervals,
)
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.exact import exact_range, exact_ranges

_CANDIDATES = torch.cat([torch.linspace(0.02, 0.2, 10), torch.linspace(0.24, 1.0, 20)])
_ABOVE = torch.tensor([1.1, 1.25, 1.5])  # beyond the largest value: exact steps may be rounded up
_MAX_ELEMENTS = 1 << 17
_TINY = 1e-8


@dataclass(frozen=True)
class FittedRanges:
    """Ranges fitted to a tensor.

    Attributes:
        low: Range starts, float32, ``spec.range_shape``.
        high: Range ends, float32, ``spec.range_shape``.
        error: Mean squared error at every quantized width, ascending: float32,
            ``[widths, *spec.range_item_shape]``.
    """

    low: Tensor
    high: Tensor
    error: Tensor


def fit_ranges(spec: QuantizerSpec, values: Tensor) -> FittedRanges:
    """Fits the range of every width to values, by least squared error.

    The best clipping range at 2 bits is far narrower than at 8, so with one range for all widths a
    model loses nearly everything when a gate falls. ``element`` gates share one range, because
    their grids must stay nested. It is that of the narrowest width, at which clipping costs least
    compared with rounding.

    Args:
        spec: The spec of the quantizer.
        values: Observed values, float32: the tensor itself, or any number of samples of an
            activation (flat for ``tensor`` and ``element`` gates, else ``[N, ...shape[1:]]``).

    Returns:
        The ranges and their errors.
    """
    rows = _rows(spec, values.detach().float())
    top = rows.amax(dim=1).clamp_min(0.0)
    bottom = rows.amin(dim=1).clamp_max(0.0)
    if spec.form.is_symmetric:
        top = torch.maximum(top, -bottom).clamp_min(_TINY)
        bottom = -top
    elif spec.form is GridForm.UNSIGNED:
        top, bottom = top.clamp_min(_TINY), torch.zeros_like(top)
    else:
        top = torch.where(top - bottom < _TINY, torch.full_like(top, _TINY), top)

    lows, highs, errors = [], [], []
    for width in spec.ladder.quantized or (8,):
        best_error = torch.full_like(top, float("inf"))
        best_low, best_high = bottom, top
        candidates = torch.cat([_CANDIDATES, _ABOVE]) if spec.exact else _CANDIDATES
        for fraction in candidates.tolist():
            low, high = _candidate(spec, bottom * fraction, top * fraction, width)
            error = _error(rows, low, high, width, spec.form)
            better = error < best_error
            best_low = torch.where(better, low, best_low)
            best_high = torch.where(better, high, best_high)
            best_error = torch.minimum(error, best_error)
        lows.append(best_low)
        highs.append(best_high)
        errors.append(best_error)
    if spec.granularity is Granularity.ELEMENT:
        low, high = exact(spec, torch.stack(lows[:1]), torch.stack(highs[:1]))
        lows, highs = [low[0]], [high[0]]
        errors = [
            _error(rows, lows[0], highs[0], width, spec.form)
            for width in spec.ladder.quantized or (8,)
        ]
    return FittedRanges(
        torch.stack(lows).reshape(spec.range_shape),
        torch.stack(highs).reshape(spec.range_shape),
        torch.stack(errors).reshape(len(errors), *spec.range_item_shape),
    )


def exact(spec: QuantizerSpec, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Applies :func:`~onnx_cgmq.gating.exact.exact_ranges` to tensors, without a gradient."""
    ends = exact_ranges(spec, low.detach().numpy(), high.detach().numpy())
    return torch.from_numpy(ends[0]), torch.from_numpy(ends[1])


def _candidate(spec: QuantizerSpec, low: Tensor, high: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Rounds a range as the quantizer will, if its spec asks for exact steps."""
    shared = spec.granularity is Granularity.ELEMENT  # fit_ranges rounds it, for the widest grid
    if not spec.exact or shared or width > INTEGER_KERNEL_BITS:
        return low, high
    ends = exact_range(spec, low.numpy(), high.numpy(), width)
    return torch.from_numpy(ends[0]), torch.from_numpy(ends[1])


def _rows(spec: QuantizerSpec, values: Tensor) -> Tensor:
    """Arranges values in one row for every range, and thins them if there are many."""
    if spec.has_channels:
        assert spec.axis is not None
        rows = values.movedim(spec.axis, 0).reshape(spec.shape[spec.axis], -1)
    else:
        rows = values.reshape(1, -1)
    stride = -(-rows.numel() // _MAX_ELEMENTS)
    return rows[:, ::stride] if stride > 1 and rows.shape[1] >= 4 * stride else rows


def _error(rows: Tensor, low: Tensor, high: Tensor, width: int, form: GridForm) -> Tensor:
    """The mean squared quantization error of every row."""
    step = ((high - low) / intervals(width, form)).unsqueeze(1)
    smallest, largest = code_range(width, form)
    zero_point = torch.zeros_like(step)
    if form is GridForm.AFFINE:
        zero_point = torch.round(-low.unsqueeze(1) / step).clamp(smallest, largest)
    codes = torch.round(rows / step)
    codes = torch.maximum(torch.minimum(codes, largest - zero_point), smallest - zero_point)
    return codes.mul_(step).sub_(rows).square_().mean(dim=1)
