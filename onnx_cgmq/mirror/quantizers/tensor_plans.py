"""Makes the plan of each tensor from its quantizer in the mirror."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.contract.bits import (
    FLOAT_BITS,
    Granularity,
    GridForm,
    code_range,
    intervals,
    nesting_factor,
)
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

_Ints = npt.NDArray[np.int64]


def tensor_plan(quantizer: GatedQuantizer, values: Tensor | None) -> TensorPlan:
    """Makes the plan of one tensor.

    Args:
        quantizer: The quantizer of the tensor.
        values: The learned float values of a weight or bias, else ``None``.
    """
    spec = quantizer.spec
    grid, low, high = quantizer.selected()
    widths = quantizer.widths
    has_grid = _has_grid(widths)
    shape = np.broadcast_shapes(spec.gate_shape, spec.range_item_shape)
    step = np.broadcast_to(_array(grid.step), shape)
    zero_point = np.zeros(shape)
    if spec.form is GridForm.AFFINE:
        zero_point = np.broadcast_to(-_array(grid.code_min), shape)
    return TensorPlan(
        name=spec.tensor,
        role=spec.role,
        form=spec.form,
        granularity=spec.granularity,
        shape=spec.shape,
        axis=spec.axis,
        block=spec.block,
        widths=widths,
        low=_array(low),
        high=_array(high),
        step=np.where(has_grid, step, 0.0).astype(np.float32),
        zero_point=np.where(has_grid, zero_point, 0).astype(np.int64),
        values=None if values is None else _array(values).copy(),
    )


def learned_values(values: Tensor, original: ir.TensorProtocol) -> Tensor | None:
    """Returns the values of a weight or bias, or ``None`` if they are still those of the model.

    A plan copies the values that it gets. Values that the model has need not be in memory twice.
    """
    with reading(original) as array:
        return None if np.array_equal(array, _array(values)) else values


@torch.no_grad()
def narrow_to_codes(quantizer: GatedQuantizer, values: Tensor) -> None:
    """Gives each channel or element of a weight the narrowest width that has its values.

    The values do not change, and the cost can only fall. The widths can then be read from the
    written codes alone.

    Args:
        quantizer: Quantizer of a weight or bias. If it has one gate for the whole tensor, nothing
            changes.
        values: The float values of the tensor.
    """
    granularity = quantizer.spec.granularity
    if granularity is Granularity.TENSOR:
        return
    grid, _, _ = quantizer.selected()
    widths = quantizer.widths
    has_grid = _has_grid(widths)
    rounded = np.round(_array(values) / _array(grid.step))
    codes = np.clip(rounded, _array(grid.code_min), _array(grid.code_max))
    codes = np.where(has_grid, codes, 0).astype(np.int64)
    if granularity is Granularity.ELEMENT:
        narrow = _narrowest_by_element(quantizer, widths, codes, has_grid)
    else:
        narrow = _narrowest_by_channel(quantizer, widths, codes, has_grid)
        for width in quantizer.spec.ladder.quantized:
            # Each width has a range of its own: the new width must keep the old step.
            moved = torch.from_numpy((narrow == width) & (widths != width)).to(grid.step.device)
            index = quantizer.spec.range_index(width)
            span = grid.step * intervals(width, quantizer.spec.form)
            high = torch.where(moved, span / 2, quantizer.high[index])
            quantizer.base_high[index] = high
            quantizer.log_high[index] = 0.0
    quantizer.set_gate(quantizer.gate_for(narrow))


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    """The values in numpy, which a tensor on the CPU shares its memory with."""
    return values.detach().cpu().numpy()


def _has_grid(widths: _Ints) -> npt.NDArray[np.bool_]:
    return np.asarray((widths > 0) & (widths < FLOAT_BITS))


def _narrowest_by_element(
    quantizer: GatedQuantizer, widths: _Ints, codes: _Ints, has_grid: npt.NDArray[np.bool_]
) -> _Ints:
    """The width of the coarsest nested grid that has the value of each element."""
    ladder = quantizer.spec.ladder
    narrow: _Ints = widths.copy()
    for fine in ladder.quantized:
        here = has_grid & (widths == fine)
        for coarse in reversed([width for width in ladder.quantized if width < fine]):
            factor = nesting_factor(coarse, fine)
            largest = code_range(coarse, quantizer.spec.form)[1]
            narrow[here & (codes % factor == 0) & (np.abs(codes) <= factor * largest)] = coarse
    if ladder.prunes:
        narrow[has_grid & (codes == 0)] = 0
    return narrow


def _narrowest_by_channel(
    quantizer: GatedQuantizer, widths: _Ints, codes: _Ints, has_grid: npt.NDArray[np.bool_]
) -> _Ints:
    """The narrowest width whose code range holds the codes of each channel."""
    spec = quantizer.spec
    axes = tuple(axis for axis in range(len(spec.shape)) if axis != spec.axis)
    largest = np.abs(codes).max(axis=axes, keepdims=True)
    narrow: _Ints = widths.copy()
    for width in reversed(spec.ladder.quantized):
        fits = has_grid & (width < narrow) & (largest <= code_range(width, spec.form)[1])
        narrow[fits] = width
    if spec.ladder.prunes:
        narrow[has_grid & (largest == 0)] = 0
    return narrow
