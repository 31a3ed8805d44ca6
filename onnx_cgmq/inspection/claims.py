"""Finds widths that are narrower than a type, where the embedded plan claims them and codes agree.

What the embedded plan says is called a claim, because a file may be changed after it was written.
The file of another tool has no plan: an INT8 weight has 8 bits there, whatever its codes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, GridForm, code_range
from onnx_cgmq.inspection.patterns.grid import IntArray

Claim = Mapping[str, Any]
"""The entry of one tensor in an embedded plan."""

_WIDTHS: Final = (2, 4, 8, 16)


def claimed_granularity(claim: Claim) -> Granularity:
    """Returns the granularity that a claim gives to the widths of a tensor."""
    return Granularity(claim.get("granularity", Granularity.TENSOR))


def claimed_weight_widths(codes: IntArray, claim: Claim) -> IntArray:
    """Returns the widths that a claim gives to a weight, as far as its codes allow.

    Args:
        codes: The codes on a symmetric grid, less the zero point, int64.
        claim: The entry of the weight in the embedded plan.
    """
    granularity = claimed_granularity(claim)
    if granularity is Granularity.ELEMENT:
        return _nested_widths(codes, claim)
    magnitudes = np.abs(codes)
    axis = claim.get("axis")
    if granularity is Granularity.CHANNEL and axis is not None and codes.ndim:
        others = tuple(i for i in range(codes.ndim) if i != axis % codes.ndim)
        return _narrowest_widths(magnitudes.max(axis=others, keepdims=True), claim)
    return _narrowest_widths(np.asarray(magnitudes.max(initial=0)), claim)


def claimed_activation_widths(widths: IntArray, claim: Claim) -> IntArray:
    """Returns the widths of an activation: those of the file, or those of a claim if wider.

    Args:
        widths: The widths that the graph shows.
        claim: The entry of the activation in the embedded plan.
    """
    claimed = np.asarray(claim.get("widths", 0), dtype=np.int64)
    if claimed.ndim and claimed.shape != widths.shape:
        return widths
    return np.maximum(widths, claimed)


def _narrowest_widths(largest: IntArray, claim: Claim) -> IntArray:
    """Returns the widths of the narrowest symmetric grids for codes, or the claimed ones if wider.

    Args:
        largest: The largest magnitude of a code, for the tensor or for each channel.
        claim: The entry of the weight in the embedded plan.
    """
    widths = np.full(np.shape(largest), FLOAT_BITS, dtype=np.int64)
    for width in reversed(_WIDTHS):
        widths[largest <= code_range(width, GridForm.SYMMETRIC)[1]] = width
    pruned = (largest == 0) & (0 in claim.get("ladder", ()))
    floor = np.asarray(claim.get("widths", 2), dtype=np.int64)
    if floor.shape not in ((), widths.shape):
        floor = np.array(2)
    return np.where(pruned, floor * (floor > 2), np.maximum(widths, floor)).astype(np.int64)


def _nested_widths(codes: IntArray, claim: Claim) -> IntArray:
    """Returns the narrowest width whose grid has the value of an element, for every element.

    All grids are nested in the widest one, which the codes are on.

    Args:
        codes: The codes on the widest grid.
        claim: The entry of the weight in the embedded plan.
    """
    largest = int(np.abs(codes).max(initial=0))
    fitting = (w for w in _WIDTHS if largest <= code_range(w, GridForm.SYMMETRIC)[1])
    grid = next(fitting, FLOAT_BITS)
    claimed = claim.get("grid_width", grid)
    grid = claimed if claimed in _WIDTHS and claimed >= grid else grid
    ladder = claim.get("ladder", _WIDTHS)
    widths = np.full(codes.shape, grid, dtype=np.int64)
    for width in sorted((w for w in ladder if 0 < w < grid < FLOAT_BITS), reverse=True):
        factor = (2**grid - 1) // (2**width - 1)
        fits = np.abs(codes) <= factor * code_range(width, GridForm.SYMMETRIC)[1]
        widths[fits & (codes % factor == 0)] = width
    if 0 in ladder:
        widths[codes == 0] = 0
    return widths


def claimed_float_widths(claim: Claim, values: npt.NDArray[Any], axis: int | None) -> IntArray:
    """Returns the widths of a float initializer.

    An element has the width of its claim if its value lies on the grid of that width, and 32 bits
    otherwise. With one width per channel, all values must lie on their grids.

    Args:
        claim: The entry of the tensor in the embedded plan.
        values: The values of the initializer.
        axis: The axis that counts output channels: each may have a step of its own. Otherwise all
            elements of a width share one step, because with a step of its own any value is on a
            grid.
    """
    float_bits = np.array(FLOAT_BITS, dtype=np.int64)
    if not {"step", "widths"} <= set(claim):
        return float_bits
    claimed, steps = claim["widths"].astype(np.int64), claim["step"]
    try:
        widths = np.broadcast_to(claimed, values.shape)
        step = np.broadcast_to(steps, values.shape)
    except ValueError:
        return float_bits
    quantized = (widths > 0) & (widths < FLOAT_BITS)
    of_width = (step[quantized & (widths == width)] for width in _WIDTHS)
    by_channel = axis is not None and _varies_only_along(steps, axis, values.ndim)
    if not by_channel and any(len(np.unique(shared)) > 1 for shared in of_width):
        return float_bits
    codes = np.round(values / np.where(step > 0, step, np.float32(1)))
    on_grid = np.where(widths == 0, values == 0, codes.astype(np.float32) * step == values)
    on_grid &= (step > 0) | ~quantized
    for width in _WIDTHS:
        largest = code_range(width, GridForm.SYMMETRIC)[1]
        on_grid &= (widths != width) | (np.abs(codes) <= largest)
    honest = on_grid | (widths == FLOAT_BITS)
    if claimed.shape == values.shape:
        return np.where(honest, widths, FLOAT_BITS).astype(np.int64)
    return claimed if bool(honest.all()) else float_bits


def _varies_only_along(steps: npt.NDArray[Any], axis: int, rank: int) -> bool:
    before = rank - steps.ndim
    return all(size == 1 or before + i == axis for i, size in enumerate(steps.shape))
