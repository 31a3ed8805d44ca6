"""Fits the range of every width by least squared error."""

from __future__ import annotations

import zlib
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
from onnx_cgmq.mirror.quantizers.observed import Observed, observe_all

_CANDIDATES = torch.cat([torch.linspace(0.02, 0.2, 10), torch.linspace(0.24, 1.0, 20)])
_ABOVE = torch.tensor([1.1, 1.25, 1.5])  # beyond the largest value: exact steps may be rounded up
_OF_ONE_END = torch.linspace(0.4, 1.0, 13)  # where the two ends of an affine range may differ
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


def fit_ranges(spec: QuantizerSpec, values: Tensor | Observed) -> FittedRanges:
    """Fits the range of every width to values, by least squared error.

    The best clipping range at 2 bits is far narrower than at 8, so with one range for all widths a
    model loses nearly everything when a gate falls. ``element`` gates share one range, because
    their grids must stay nested. It is that of the narrowest width, at which clipping costs least
    compared with rounding.

    Args:
        spec: The spec of the quantizer.
        values: The tensor itself, or any number of samples of an activation (flat for ``tensor``
            and ``element`` gates, else ``[N, ...shape[1:]]``), float32; or what an
            :class:`~onnx_cgmq.mirror.quantizers.observed.Observer` kept of these.

    Returns:
        The ranges and their errors.
    """
    seen = values if isinstance(values, Observed) else observe_all(spec, values)
    bottom, top = _full_range(spec, seen.rows)
    lows, highs, errors = [], [], []
    for width in spec.ladder.quantized or (8,):
        search = _Search(spec, seen, width, bottom, top)
        for fraction in torch.cat([_CANDIDATES, _ABOVE] if spec.exact else [_CANDIDATES]).tolist():
            search.consider(bottom * fraction, top * fraction)
        if spec.form is GridForm.AFFINE:
            low, high = search.low, search.high
            for fraction in _OF_ONE_END.tolist():
                search.consider(bottom * fraction, high)
            low = search.low
            for fraction in _OF_ONE_END.tolist():
                search.consider(low, top * fraction)
        lows.append(search.low)
        highs.append(search.high)
        errors.append(search.error)
    if spec.granularity is Granularity.ELEMENT:
        low, high = exact(spec, torch.stack(lows[:1]), torch.stack(highs[:1]))
        lows, highs = [low[0]], [high[0]]
        errors = [
            _error(seen, lows[0], highs[0], width, spec.form)
            for width in spec.ladder.quantized or (8,)
        ]
    return FittedRanges(
        torch.stack(lows).reshape(spec.range_shape),
        torch.stack(highs).reshape(spec.range_shape),
        torch.stack(errors).reshape(len(errors), *spec.range_item_shape),
    )


def exact(spec: QuantizerSpec, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Applies :func:`~onnx_cgmq.gating.exact.exact_ranges` to tensors, without a gradient."""
    ends = exact_ranges(spec, low.detach().cpu().numpy(), high.detach().cpu().numpy())
    return torch.from_numpy(ends[0]).to(low.device), torch.from_numpy(ends[1]).to(low.device)


def _candidate(spec: QuantizerSpec, low: Tensor, high: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Rounds a range as the quantizer will, if its spec asks for exact steps."""
    shared = spec.granularity is Granularity.ELEMENT  # fit_ranges rounds it, for the widest grid
    if not spec.exact or shared or width > INTEGER_KERNEL_BITS:
        return low, high
    ends = exact_range(spec, low.cpu().numpy(), high.cpu().numpy(), width)
    return torch.from_numpy(ends[0]).to(low.device), torch.from_numpy(ends[1]).to(low.device)


class _Search:
    """Keeps the best of the ranges that are considered for one width, in each row.

    Attributes:
        low: Starts of the best ranges so far, float32 ``[ranges]``.
        high: Their ends, likewise.
        error: Their mean squared errors, likewise.
    """

    def __init__(
        self, spec: QuantizerSpec, seen: Observed, width: int, low: Tensor, high: Tensor
    ) -> None:
        self._spec, self._seen, self._width = spec, seen, width
        self.low, self.high = low, high
        self.error = torch.full_like(high, float("inf"))

    def consider(self, low: Tensor, high: Tensor) -> None:
        """Takes a range in those rows where it is better than the best so far."""
        low, high = _candidate(self._spec, low, high, self._width)
        error = _error(self._seen, low, high, self._width, self._spec.form)
        better = error < self.error
        self.low = torch.where(better, low, self.low)
        self.high = torch.where(better, high, self.high)
        self.error = torch.minimum(error, self.error)


def _full_range(spec: QuantizerSpec, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns start and end of the range that holds all values, and zero, in each row."""
    top = rows.amax(dim=1).clamp_min(0.0)
    bottom = rows.amin(dim=1).clamp_max(0.0)
    if spec.form.is_symmetric:
        top = torch.maximum(top, -bottom).clamp_min(_TINY)
        return -top, top
    if spec.form is GridForm.UNSIGNED:
        return torch.zeros_like(top), top.clamp_min(_TINY)
    return bottom, torch.where(top - bottom < _TINY, torch.full_like(top, _TINY), top)


def _error(seen: Observed, low: Tensor, high: Tensor, width: int, form: GridForm) -> Tensor:
    """The mean squared quantization error of every row."""
    step = ((high - low) / intervals(width, form)).unsqueeze(1)
    smallest, largest = code_range(width, form)
    zero_point = torch.zeros_like(step)
    if form is GridForm.AFFINE:
        zero_point = torch.round(-low.unsqueeze(1) / step).clamp(smallest, largest)
    codes = torch.div(seen.rows, step).round_()
    lowest, highest = smallest - zero_point, largest - zero_point
    if len(codes) == 1:  # single numbers are three times as fast
        codes = codes.clamp_(float(lowest), float(highest))
    else:
        codes = torch.minimum(torch.maximum(codes, lowest, out=codes), highest, out=codes)
    return codes.mul_(step).sub_(seen.rows).square_().matmul(seen.shares[0])


def checksum(values: Tensor) -> int:
    """Returns a checksum of values, which tells whether they have changed.

    Torch's own version of a tensor does not: fused Adam leaves it as it is.
    """
    raw = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(raw.numpy().data)
