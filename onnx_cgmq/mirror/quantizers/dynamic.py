"""The quantizer of an activation whose range is that of the whole tensor in each run."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, GridForm, intervals
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.mirror.quantizers.fake_quantize import Grid
from onnx_cgmq.mirror.quantizers.observed import Observed
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

_CODES = float(intervals(INTEGER_KERNEL_BITS, GridForm.DYNAMIC))


class DynamicQuantizer(GatedQuantizer):
    """Computes DynamicQuantizeLinear and DequantizeLinear, with a straight-through gradient.

    It has no range of its own: nothing is fitted or learned, and plans have none.
    """

    def __init__(self, spec: QuantizerSpec, low: Tensor | None, high: Tensor, gate: Tensor) -> None:
        """Builds the quantizer, as :class:`GatedQuantizer` does."""
        super().__init__(spec, low, torch.zeros_like(high), gate)
        self._seen_range = (torch.zeros(()), torch.zeros(()))

    def fit(self, values: Tensor | Observed) -> None:
        """Notices only that the quantizer was calibrated."""
        self.calibrated.fill_(True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantizes a tensor, as :meth:`GatedQuantizer.forward` does."""
        if x.numel():
            low, high = torch.aminmax(x.detach())
            self._seen_range = (high.clamp_min(0.0), low.clamp_max(0.0))
        return super().forward(x)

    def _selected_range(self) -> tuple[Tensor, Tensor]:
        """End and start of the range of the tensor at hand."""
        return self._seen_range

    def grid(self, high: Tensor, low: Tensor) -> Grid:
        """The grid of 8 bits over a range that holds 0; its step is 1 where all values are 0."""
        step = (high - low) / _CODES
        step = torch.where(step > 0, step, 1.0)
        zero_point = torch.round(-low / step).clamp(0.0, _CODES)
        return Grid(step, -zero_point, _CODES - zero_point)

    def _kernel_step(self, grid: Grid) -> Tensor:
        """0: nothing may be rounded to a step that is known at run time only."""
        return torch.zeros(self.spec.range_item_shape)

    @torch.no_grad()
    def selected(self) -> tuple[Grid, Tensor, Tensor]:
        """No grid and no range, as a plan has it."""
        zero = torch.zeros(())
        return Grid(zero, zero, zero), zero, zero
