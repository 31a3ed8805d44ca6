"""Integer codes of weights and biases: numpy only, in the float32 arithmetic of the gated graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.bits import (
    FLOAT_BITS,
    INTEGER_KERNEL_BITS,
    Granularity,
    code_range,
    intervals,
    nesting_factor,
)
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.gated_qdq import INT32_LIMIT

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
CodeArray = npt.NDArray[np.int32]

_PAIR_LIMIT: Final = 2**15 - 1
"""``vpmaddubsw`` adds two products of an unsigned and a signed byte in saturating INT16."""


@dataclass(frozen=True)
class GridCodes:
    """A tensor as integer codes on one grid.

    Attributes:
        codes: Symmetric codes, shape of the tensor.
        scale: Step of the grid: ``()``, or ``[C]`` with a grid of its own per channel.
        width: Bits of the grid: 2, 4, 8 or 16.
    """

    codes: CodeArray
    scale: FloatArray
    width: int


def own_codes(plan: TensorPlan, values: FloatArray) -> CodeArray:
    """Codes on each entry's own grid; 0 for entries of 0 and 32 bits."""
    has_grid = (plan.widths > 0) & (plan.widths < FLOAT_BITS)
    largest = _by_width(plan.widths, lambda width: code_range(width, plan.form)[1])
    limit = largest.astype(np.float32)
    step = np.where(has_grid, plan.step, np.float32(1)).astype(np.float32)
    # In place: a weight may be large, and several copies of it would be needed otherwise.
    codes = np.asarray(np.divide(values, step, dtype=np.float32))
    np.round(codes, out=codes)
    np.clip(codes, -limit, limit, out=codes)
    np.copyto(codes, 0, where=~has_grid)
    return codes.astype(np.int32)


def quantized_values(plan: TensorPlan, values: FloatArray) -> FloatArray:
    """What the gated quantizer makes of a weight or bias: float32, shape of the tensor."""
    if plan.is_float:
        return values
    quantized = own_codes(plan, values).astype(np.float32) * plan.step
    return np.where(plan.widths == FLOAT_BITS, values, quantized).astype(np.float32)


def grid_codes(spec: QuantizerSpec, plan: TensorPlan, values: FloatArray) -> GridCodes:
    """Codes of a weight on the grid of its widest entry.

    The grids of ``element`` widths are nested, so one scale serves all of them; ``channel`` widths
    have a scale each.

    Raises:
        ValueError: Some entry is float.
    """
    widest = plan.grid_width
    if widest == FLOAT_BITS:
        raise ValueError(f"{plan.name}: float entries have no codes")
    width = max(widest, 2)  # pruned as a whole: zeros of the narrowest type
    codes = own_codes(plan, values)
    if plan.granularity is Granularity.ELEMENT:
        factors = _by_width(plan.widths, lambda own: nesting_factor(own, width))
        codes *= factors.astype(np.int32)
    scale = kernel_step(spec, plan)
    return GridCodes(codes, scale.reshape(-1) if scale.ndim else scale, width)


def kernel_step(spec: QuantizerSpec, plan: TensorPlan) -> FloatArray:
    """Step of the integer tensor that holds the codes, float32, ``spec.range_item_shape``.

    Pruned entries have the step of the narrowest width, as in the gated graph.
    """
    narrowest = spec.ladder.quantized[0] if spec.ladder.quantized else INTEGER_KERNEL_BITS
    span = np.asarray(plan.high, np.float32) - np.asarray(plan.low, np.float32)
    pruned = np.asarray(span / np.float32(intervals(narrowest, plan.form)), dtype=np.float32)
    if plan.granularity is Granularity.ELEMENT:
        widest = plan.step[plan.widths == plan.grid_width]
        step = widest.reshape(-1)[0] if plan.grid_width > 0 else pruned.reshape(-1)[0]
        return np.asarray(step, dtype=np.float32)
    step = np.where(plan.widths == 0, pruned, plan.step).astype(np.float32)
    return np.asarray(step, dtype=np.float32).reshape(spec.range_item_shape)


def has_integer_kernel(plan: TensorPlan) -> bool:
    """Whether every entry is narrow enough for integer kernels."""
    return plan.grid_width <= INTEGER_KERNEL_BITS


def accumulator_codes(bias: FloatArray, step: FloatArray) -> npt.NDArray[np.int32]:
    """INT32 codes of a bias at the step of the accumulator; it must fit (:func:`fits_int32`)."""
    return np.round(bias / step).astype(np.int32)


def fits_int32(bias: FloatArray, step: FloatArray) -> bool:
    """Whether a bias has codes in INT32 at the step of the accumulator, as in the gated graph."""
    return bool(np.abs(bias / step).max(initial=0) <= np.float32(INT32_LIMIT))


def may_saturate(codes: CodeArray, largest_activation: int) -> bool:
    """Whether a pair of products of UINT8 activations and INT8 weights can leave INT16.

    x86 kernels without VNNI add such pairs with saturation and are silently wrong then. Which two
    weights meet depends on the kernel, so the two largest of a sign are taken to meet.
    """
    flat = codes.reshape(-1)
    ends = flat if flat.size <= 4 else np.partition(flat, [1, -2])[[0, 1, -2, -1]]
    for signed in (ends, -ends):
        pair = np.sort(np.maximum(signed, 0))[-2:]
        if int(pair.sum()) * largest_activation > _PAIR_LIMIT:
            return True
    return False


def _by_width(widths: IntArray, value: Callable[[int], int]) -> IntArray:
    table = np.zeros(FLOAT_BITS + 1, dtype=np.int64)
    for width in np.unique(widths):
        table[width] = value(int(width)) if 0 < width < FLOAT_BITS else 0
    return np.asarray(table[widths])
