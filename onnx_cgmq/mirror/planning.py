"""The BitPlan of a mirror: what its quantizers hold, in numbers that a file can carry."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from onnx_cgmq.bits import FLOAT_BITS, Granularity, Role, code_range, intervals, nesting_factor
from onnx_cgmq.mirror.quantizer import GatedQuantizer
from onnx_cgmq.plan import TensorPlan


def tensor_plan(quantizer: GatedQuantizer, values: Tensor | None) -> TensorPlan:
    """The plan of one tensor.

    Weights with ``element`` and ``channel`` gates are given the narrowest width whose codes hold
    them: the same values, never a higher cost, and readable from the written codes alone.

    Args:
        quantizer: Its quantizer.
        values: The learned float values of a weight or bias, else ``None``.
    """
    spec = quantizer.spec
    grid, low, high = quantizer.selected()
    widths = quantizer.widths
    step = np.broadcast_to(grid.step.numpy(), spec.gate_shape)
    has_grid = (widths > 0) & (widths < FLOAT_BITS)
    if spec.role is not Role.ACTIVATION and values is not None:
        codes = _codes(values.detach().numpy(), grid.step.numpy(), grid.code_max.numpy(), has_grid)
        if spec.granularity is Granularity.ELEMENT:
            widths, step = _narrowest_by_element(quantizer, widths, step, codes, has_grid)
        elif spec.granularity is Granularity.CHANNEL:
            widths = _narrowest_by_channel(quantizer, widths, codes, has_grid)
        has_grid = (widths > 0) & (widths < FLOAT_BITS)
    zero_point = np.broadcast_to(-grid.code_min.numpy(), spec.gate_shape)
    if spec.role is not Role.ACTIVATION:
        zero_point = np.zeros_like(zero_point)
    return TensorPlan(
        name=spec.tensor,
        role=spec.role,
        form=spec.form,
        granularity=spec.granularity,
        shape=spec.shape,
        axis=spec.axis,
        widths=widths,
        low=low.numpy(),
        high=high.numpy(),
        step=np.where(has_grid, step, 0.0).astype(np.float32),
        zero_point=np.where(has_grid, zero_point, 0).astype(np.int64),
        values=None if values is None else values.detach().numpy().copy(),
    )


def _codes(
    values: npt.NDArray[np.float32],
    step: npt.NDArray[np.float32],
    code_max: npt.NDArray[np.float32],
    has_grid: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    safe = np.where(step > 0, step, np.float32(1))
    codes = np.clip(np.round(values / safe), -code_max, code_max)
    return np.where(has_grid, codes, 0).astype(np.int64)


def _narrowest_by_element(
    quantizer: GatedQuantizer,
    widths: npt.NDArray[np.int64],
    step: npt.NDArray[np.float32],
    codes: npt.NDArray[np.int64],
    has_grid: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Narrows each element to the coarsest nested grid that has its value."""
    ladder = quantizer.spec.ladder
    high, low = quantizer.high.detach()[0], quantizer.low.detach()[0]
    steps = {w: float((high - low) / intervals(w)) for w in ladder.quantized}
    narrow, narrow_step = widths.copy(), step.copy()
    for fine in sorted(ladder.quantized, reverse=True):
        here = has_grid & (widths == fine)
        for coarse in sorted((w for w in ladder.quantized if w < fine), reverse=True):
            factor = nesting_factor(coarse, fine)
            largest = code_range(coarse, quantizer.spec.form)[1]
            fits = here & (codes % factor == 0) & (np.abs(codes) <= factor * largest)
            narrow[fits] = coarse
            narrow_step[fits] = steps[coarse]
    if ladder.prunes:
        zero = has_grid & (codes == 0)
        narrow[zero], narrow_step[zero] = 0, 0.0
    return narrow, narrow_step


def _narrowest_by_channel(
    quantizer: GatedQuantizer,
    widths: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int64],
    has_grid: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Narrows each channel to the width whose code range holds its codes (its step stays)."""
    spec = quantizer.spec
    axes = tuple(axis for axis in range(len(spec.shape)) if axis != spec.axis)
    largest = np.abs(codes).max(axis=axes, keepdims=True)
    narrow: npt.NDArray[np.int64] = widths.copy()
    for width in sorted(spec.ladder.quantized, reverse=True):
        fits = has_grid & (width < narrow) & (largest <= code_range(width, spec.form)[1])
        narrow[fits] = width
    if spec.ladder.prunes:
        narrow[has_grid & (largest == 0)] = 0
    return narrow
