"""Computes integer codes of weights and biases, in the float32 arithmetic of the gated graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
from onnx_cgmq.gating.summed_pairs import SumOrder, largest_pair

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
CodeArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class GridCodes:
    """A tensor as integer codes on one grid, or on one grid for each channel.

    Attributes:
        codes: Symmetric codes, int32, in the shape of the tensor.
        scale: Step of the grid, float32: ``()``, or ``[C]`` with a step for each channel, or
            ``[blocks, C]`` or ``[C, blocks]`` with one for each block.
        width: Width of the grid: 2, 4, 8 or 16.
    """

    codes: CodeArray
    scale: FloatArray
    width: int


def own_codes(plan: TensorPlan, values: FloatArray) -> CodeArray:
    """Computes the code of every element on the grid of its own width.

    Args:
        plan: The plan of the weight or bias.
        values: Its float values, float32, in its shape.

    Returns:
        Codes in the shape of the tensor; 0 for elements of 0 and 32 bits.
    """
    has_grid = (plan.widths > 0) & (plan.widths < FLOAT_BITS)
    largest = _by_width(plan.widths, lambda width: code_range(width, plan.form)[1])
    limit = largest.astype(np.float32)
    step = np.where(has_grid, plan.step, np.float32(1)).astype(np.float32)
    # In place, because a weight may be large and each further operation would copy it.
    codes = np.asarray(np.divide(_viewed(plan, values), step, dtype=np.float32))
    np.round(codes, out=codes)
    np.clip(codes, -limit, limit, out=codes)
    np.copyto(codes, 0, where=~has_grid)
    return codes.astype(np.int32).reshape(values.shape)


def _viewed(plan: TensorPlan, values: FloatArray) -> FloatArray:
    """The values in the shape to which the steps of the plan broadcast."""
    return values if plan.block is None else values.reshape(plan.view_shape)


def quantized_values(plan: TensorPlan, values: FloatArray) -> FloatArray:
    """Computes what the gated quantizer makes of a weight or bias.

    Args:
        plan: The plan of the weight or bias.
        values: Its float values, float32, in its shape.

    Returns:
        The quantized values, float32, in the shape of the tensor.
    """
    if plan.is_float:
        return values
    quantized = _viewed(plan, own_codes(plan, values).astype(np.float32)) * plan.step
    quantized = quantized.reshape(values.shape)
    return np.where(plan.widths == FLOAT_BITS, values, quantized).astype(np.float32)


def grid_codes(spec: QuantizerSpec, plan: TensorPlan, values: FloatArray) -> GridCodes:
    """Computes the codes of a weight on the grid of its widest element.

    With ``element`` widths the grids are nested, so all elements share one step. With ``channel``
    widths every channel has a step of its own, and its codes are those of its own width.

    Args:
        spec: The quantizer of the weight.
        plan: Its plan.
        values: Its float values, float32, in its shape.

    Raises:
        ValueError: An element is float.
    """
    widest = plan.grid_width
    if widest == FLOAT_BITS:
        raise ValueError(f"{plan.name}: float entries have no codes")
    width = max(widest, 2)  # a weight that is pruned as a whole is stored as zeros of 2 bits
    codes = own_codes(plan, values)
    if plan.granularity is Granularity.ELEMENT:
        factors = _by_width(plan.widths, lambda own: nesting_factor(own, width))
        codes *= factors.astype(np.int32)
    scale = stored_step(spec, plan)
    if spec.block_axis is not None:
        scale = scale.squeeze(spec.block_axis)
    elif scale.ndim:
        scale = scale.reshape(-1)
    return GridCodes(codes, scale, width)


def stored_step(spec: QuantizerSpec, plan: TensorPlan) -> FloatArray:
    """Returns the step of the integer tensor that holds the codes.

    With ``element`` widths this is the step of the widest element. Pruned entries have the step of
    the narrowest width, as in the gated graph.

    Args:
        spec: The quantizer of the tensor.
        plan: Its plan.

    Returns:
        The step, float32, in the shape ``spec.range_item_shape``.
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


def fits_integer_kernels(plan: TensorPlan) -> bool:
    """Says whether all widths of a tensor are narrow enough for integer kernels."""
    return plan.grid_width <= INTEGER_KERNEL_BITS


def accumulator_codes(bias: FloatArray, step: FloatArray) -> npt.NDArray[np.int32]:
    """Computes the INT32 codes of a bias, in units of an accumulator.

    Args:
        bias: The bias, float32, ``[C]``. Its codes must fit (:func:`fits_int32`).
        step: One unit of the accumulator, ``()`` or ``[C]``.
    """
    return np.round(bias / step).astype(np.int32)


def fits_int32(bias: FloatArray, step: FloatArray) -> bool:
    """Says whether the codes of a bias fit into INT32, by the same limit as in the gated graph.

    Args:
        bias: The bias, float32, ``[C]``.
        step: One unit of the accumulator, ``()`` or ``[C]``.
    """
    return bool(np.abs(bias / step).max(initial=0) <= np.float32(INT32_LIMIT))


def may_saturate(codes: CodeArray, sums: Iterable[tuple[SumOrder, int]]) -> bool:
    """Says whether a sum of two products of UINT8 activations and INT8 weights can leave INT16.

    onnxruntime's kernels on x86 processors without VNNI add products in pairs, with saturation, and
    are silently wrong then.

    Args:
        codes: Codes of the weight, of at most 8 bits.
        sums: For each integer kernel that reads the weight, the order of its sums, and the largest
            UINT8 code that it multiplies the weight with.
    """
    largest = int(np.abs(codes).max(initial=0))
    narrow = codes.astype(np.int16)
    return any(
        2 * largest > largest_pair(activation)
        and int(order.largest_pairs(narrow).max(initial=0)) > largest_pair(activation)
        for order, activation in sums
    )


def _by_width(widths: IntArray, value: Callable[[int], int]) -> IntArray:
    """Replaces every width by a number that depends on it; 0 for the widths 0 and 32."""
    table = np.zeros(FLOAT_BITS + 1, dtype=np.int64)
    for width in np.unique(widths):
        table[width] = value(int(width)) if 0 < width < FLOAT_BITS else 0
    return np.asarray(table[widths])
