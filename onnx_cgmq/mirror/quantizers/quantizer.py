"""The gated quantizer of the mirror: a gate that selects its width, and ranges that learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnx_cgmq.contract.bits import (
    FLOAT_BITS,
    INTEGER_KERNEL_BITS,
    Granularity,
    GridForm,
    Role,
    code_range,
    intervals,
)
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.exact import exact_step_above
from onnx_cgmq.mirror.quantizers.fake_quantize import (
    GradientObserver,
    Grid,
    fake_quantize,
    seen_by,
    with_gradient_of,
)
from onnx_cgmq.mirror.quantizers.observed import Observed, observe_all
from onnx_cgmq.mirror.quantizers.ranges import checksum, exact, fit_ranges


class GatedQuantizer(nn.Module):
    """Quantizes a tensor at the width or widths that its gate selects.

    The gate is a buffer, not a parameter. Its gradient is zero everywhere, so a
    :class:`~onnx_cgmq.learn.guide.Guide` moves it. Ranges are learned as factors,
    ``high = base * exp(delta)``: they stay positive by construction, and one learning rate of
    ``delta`` fits every scale.

    Attributes:
        spec: The spec of this quantizer.
        gate: The gate, float32, ``spec.gate_shape``.
        log_high: Learned logarithm of the change of ``high``, float32, ``spec.range_shape``.
        log_low: The same for ``low``; affine grids only, else ``None``.
        revision: A number that grows whenever a selected width changes.
        noise: Mean squared error at every quantized width, from the last fit of ranges: float32,
            ``[widths, *spec.range_item_shape]``.
        observer: Sees values and gradients in the backward pass; may be ``None``.
        bypassed: Whether it passes every tensor on as it is.
        drop: How often it does so while gradients are on (QDrop, arXiv 2203.05740).
    """

    gate: Tensor
    base_high: Tensor
    base_low: Tensor
    smallest_high: Tensor
    smallest_high_of_pairs: Tensor
    noise: Tensor
    calibrated: Tensor

    def __init__(self, spec: QuantizerSpec, low: Tensor | None, high: Tensor, gate: Tensor) -> None:
        """Builds the quantizer.

        Args:
            spec: The spec of the quantizer.
            low: Range starts (affine grids only), float32, ``spec.range_shape``, at most 0.
            high: Range ends, float32, ``spec.range_shape``, positive.
            gate: The gate, float32, ``spec.gate_shape``.
        """
        super().__init__()
        self.spec = spec
        affine = spec.form is GridForm.AFFINE
        high = high.detach().clone().float().reshape(spec.range_shape)
        self.register_buffer("base_high", high)
        start = low if affine and low is not None else torch.zeros_like(high)
        self.register_buffer("base_low", start.detach().clone().float().reshape(spec.range_shape))
        self.register_buffer("smallest_high", torch.zeros_like(high))
        self.register_buffer("smallest_high_of_pairs", torch.zeros_like(high))
        self.log_high = nn.Parameter(torch.zeros_like(high))
        self.log_low = nn.Parameter(torch.zeros_like(high)) if affine else None
        self.register_buffer("gate", gate.detach().clone().float().reshape(spec.gate_shape))
        # The range of an activation is a placeholder until its gate moves or the range is set.
        touched = bool((self.gate < spec.ladder.gate_max).any() or (high != 1.0).any())
        calibrated = spec.role is not Role.ACTIVATION or touched
        self.register_buffer("calibrated", torch.tensor(calibrated))
        self.observer: GradientObserver | None = None
        self.bypassed, self.drop = False, 0.0
        count = max(1, len(spec.ladder.quantized))
        self.register_buffer("noise", torch.zeros(count, *spec.range_item_shape))
        self._seen: Observed | None = None  # to fit the range later
        self._fitted_to: int | None = None  # the checksum of the values that ranges were fitted to
        self.revision = 0
        self._levels: Tensor | None = None
        self._refresh()
        self.register_load_state_dict_post_hook(_refresh_loaded)  # type: ignore[no-untyped-call]

    # -- widths ---------------------------------------------------------------------------------

    @property
    def widths(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """The widths that the gate selects, int64, ``spec.gate_shape``."""
        return self.spec.ladder.widths_of(self.gate.cpu().numpy())

    def set_gate(self, gate: Tensor) -> bool:
        """Sets the gate, clipped to its ladder.

        Returns:
            Whether any selected width changed.
        """
        ladder, before = self.spec.ladder, self.revision
        with torch.no_grad():
            self.gate.copy_(gate.clamp(ladder.gate_min, ladder.gate_max))
        self._refresh()
        if self._seen is not None and not self._is_float:
            # Fits now, not at the next forward pass, because a plan may be made before that.
            self.fit(self._seen)
        return self.revision != before

    def gate_for(self, widths: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        """The gate that selects the given widths, each in the middle of its interval."""
        ladder = self.spec.ladder
        table = np.zeros(max(ladder.widths) + 1, dtype=np.float32)
        for width in ladder.widths:
            table[width] = ladder.gate_of(width)
        gate = torch.from_numpy(np.asarray(table[widths]))
        return gate.to(self.gate.device).reshape(self.gate.shape)

    def follow_gate(self) -> None:
        """Notices that something else than :meth:`set_gate` moved the gate, such as a copy."""
        if (id(self.gate), self.gate._version) != self._gate_seen:
            self._refresh()

    def _refresh(self) -> None:
        """Computes what ``forward`` needs from the gate, whenever the gate may have moved."""
        self._gate_seen, ladder = (id(self.gate), self.gate._version), self.spec.ladder
        self._is_calibrated = bool(self.calibrated)
        lowest, highest = (0 if ladder.prunes else 1), len(ladder.nonzero)
        levels = torch.ceil(self.gate).long().clamp_(lowest, highest)
        before, device = self._levels, levels.device
        if before is not None and before.device == device and torch.equal(levels, before):
            return
        self._levels = levels
        self.revision += 1
        self._width = int(self.widths) if self.gate.dim() == 0 else None
        self._widest = int(self.widths.max())
        if self._width is not None:
            return
        per_level = (0, *ladder.nonzero)

        def at_levels(of_level: list[Any]) -> Tensor:
            return torch.tensor(of_level, device=device)[levels]

        is_float = at_levels([width == FLOAT_BITS for width in per_level])
        codes = [
            (-math.inf, math.inf) if width == FLOAT_BITS else code_range(width, self.spec.form)
            for width in per_level
        ]
        self._code_min = at_levels([float(c[0]) for c in codes])
        self._code_max = at_levels([float(c[1]) for c in codes])
        # Pruned and float entries have no step of their own, so any range and width serves.
        quantized = ladder.quantized or (INTEGER_KERNEL_BITS,)
        index = (levels - 1).clamp(0, len(quantized) - 1)
        numbers = [float(intervals(width, self.spec.form)) for width in quantized]
        self._range_index, self._intervals = index, torch.tensor(numbers, device=device)[index]
        self._passes = is_float if bool(is_float.any()) else None
        self._all_float = bool(is_float.all())

    # -- ranges ---------------------------------------------------------------------------------

    @property
    def high(self) -> Tensor:
        """Range ends of every width, float32, ``spec.range_shape``; differentiable."""
        return self._ranges()[1]

    @property
    def low(self) -> Tensor:
        """Range starts of every width, float32, ``spec.range_shape``; differentiable."""
        return self._ranges()[0]

    def _ranges(self) -> tuple[Tensor, Tensor]:
        """Range starts and ends of every width, with exact steps if the spec says so.

        The gradient of the rounding is that of the identity.
        """
        smallest = torch.maximum(self.smallest_high, self.smallest_high_of_pairs)
        high = torch.maximum(self.base_high * torch.exp(self.log_high), smallest)
        low = self.base_low
        if self.spec.form.is_symmetric:
            low = -high
        elif self.log_low is not None:
            low = self.base_low * torch.exp(self.log_low)
        if not self.spec.exact:
            return low, high
        exact_low, exact_high = exact(self.spec, low, high)
        return with_gradient_of(low, exact_low), with_gradient_of(high, exact_high)

    def fit(self, values: Tensor | Observed) -> None:
        """Fits the range of every width to values, by least squared error (:func:`fit_ranges`)."""
        fitted = fit_ranges(self.spec, values)
        self._fitted_to = checksum(values) if isinstance(values, Tensor) else None
        with torch.no_grad():
            self.base_high.copy_(fitted.high)
            if self.spec.form is GridForm.AFFINE:
                self.base_low.copy_(fitted.low)
            self.log_high.zero_()
            if self.log_low is not None:
                self.log_low.zero_()
            self.noise.copy_(fitted.error)
            self.calibrated.fill_(True)
        self._is_calibrated = True
        self._seen = None

    def is_fitted_to(self, values: Tensor) -> bool:
        """Whether the ranges were fitted to these values of a weight as they are now."""
        return self._fitted_to == checksum(values)

    @torch.no_grad()
    def set_smallest_step(self, step: Tensor) -> None:
        """Keeps the ranges of a weight so wide that no step up to 8 bits is smaller than given.

        Args:
            step: The smallest step allowed, for each channel. Its largest entry is used if channels
                share a range, or if its size is not the number of channels (for example because
                the bias is a single number).
        """
        shape = self.spec.range_item_shape
        one_each = self.spec.has_channels and step.numel() == math.prod(shape)
        least = self._exact_above(step.reshape(shape) if one_each else step.amax().expand(shape))
        for index in range(len(self.smallest_high)):
            shared = self.spec.granularity is Granularity.ELEMENT
            width = INTEGER_KERNEL_BITS if shared else self.spec.ladder.quantized[index]
            if width <= INTEGER_KERNEL_BITS:
                self.smallest_high[index] = least * (intervals(width, self.spec.form) / 2)

    @torch.no_grad()
    def set_smallest_pair_step(self, step: Tensor, *, only_grow: bool = False) -> None:
        """Keeps the 8-bit step of a weight so large that no pair of its codes can saturate.

        What :meth:`set_smallest_step` set stays; the larger one counts.

        Args:
            step: The smallest step allowed, of ``spec.range_item_shape``; 0 where any will do.
            only_grow: Whether a larger one that was set before stays.
        """
        half = intervals(INTEGER_KERNEL_BITS, self.spec.form) / 2
        index = self.spec.range_index(INTEGER_KERNEL_BITS)
        least = self._exact_above(step) * half
        if only_grow:
            least = torch.maximum(least, self.smallest_high_of_pairs[index])
        self.smallest_high_of_pairs[index] = least

    def _exact_above(self, step: Tensor) -> Tensor:
        """The smallest step that the quantizer may have and that is not below a step."""
        least = exact_step_above(self.spec, step.float().cpu().numpy())
        return torch.as_tensor(least, device=self.gate.device)

    # -- forward --------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantizes and dequantizes a tensor.

        Args:
            x: The tensor, float32; an activation may have any batch size.

        Returns:
            The tensor on its grid, and the step that its codes have in an integer kernel, of
            ``spec.range_item_shape`` (0 if no integer kernel takes them).
        """
        observer = self.observer if torch.is_grad_enabled() else None
        dropped = self.drop and torch.is_grad_enabled() and float(torch.rand(())) < self.drop
        if self.bypassed or dropped:
            return seen_by(observer, x), self._no_step(x)
        if not self._is_calibrated:
            if self._is_float:
                self._seen = observe_all(self.spec, x)
            else:
                self.fit(x)
        if self._is_float:
            return seen_by(observer, x), self._no_step(x)
        if self._width == 0:
            return x * 0.0, torch.ones(self.spec.range_item_shape, device=x.device)
        high, low = self._selected_range()
        grid = self.grid(high.detach(), low.detach())
        affine = self.spec.form is GridForm.AFFINE
        y = fake_quantize(x, high, low if affine else None, grid, observer)
        return y, self._kernel_step(grid)

    def _no_step(self, like: Tensor) -> Tensor:
        """The step where no integer kernel takes the codes."""
        return torch.zeros(self.spec.range_item_shape, device=like.device)

    @property
    def _is_float(self) -> bool:
        return self._all_float if self._width is None else self._width == FLOAT_BITS

    def _selected_range(self) -> tuple[Tensor, Tensor]:
        """End and start of the range at the selected widths, ``spec.range_item_shape``."""
        low, high = self._ranges()
        if self.spec.granularity is Granularity.ELEMENT:
            return high[0], low[0]
        if self._width is not None:
            index = self.spec.range_index(self._width)
            return high[index], low[index]
        index_of = self._range_index.unsqueeze(0)
        return high.gather(0, index_of).squeeze(0), low.gather(0, index_of).squeeze(0)

    def grid(self, high: Tensor, low: Tensor) -> Grid:
        """The grid of the selected widths over a range of ``spec.range_item_shape``."""
        form = self.spec.form
        if self._width is not None:
            smallest, largest = code_range(self._width, form)
            step = (high - low) / intervals(self._width, form)
            code_min, code_max = torch.tensor(float(smallest)), torch.tensor(float(largest))
            passes = None
        else:
            step = (high - low) / self._intervals
            code_min, code_max, passes = self._code_min, self._code_max, self._passes
        if form is GridForm.AFFINE:
            zero_point = torch.round(-low / step)
            zero_point = torch.minimum(zero_point.clamp_min(0.0), code_max)
            code_min, code_max = code_min - zero_point, code_max - zero_point
        return Grid(step, code_min, code_max, passes)

    def _kernel_step(self, grid: Grid) -> Tensor:
        """Step of the codes; 0 if a gate selects more bits than integer kernels take."""
        if self._widest > INTEGER_KERNEL_BITS:
            return self._no_step(grid.step)
        if self.spec.granularity is Granularity.ELEMENT:
            return grid.step.amin()
        return grid.step

    @torch.no_grad()
    def selected(self) -> tuple[Grid, Tensor, Tensor]:
        """The current grid and its range, as ``(grid, low, high)``, for plans.

        If one gate selects a width without a grid (0 or 32 bits), the step is 0, and the range is
        that of the widest grid.
        """
        if self._width in (0, FLOAT_BITS):
            zero = torch.zeros(())
            return Grid(zero, zero, zero), self.low[-1], self.high[-1]
        high, low = self._selected_range()
        return self.grid(high, low), low, high


def _refresh_loaded(module: GatedQuantizer, _: object) -> None:
    module._refresh()
    module._fitted_to = None
