"""Exact steps: steps with so few bits that float and integer kernels compute the same codes.

That these few bits suffice, and how many they are, is our choice; it is not in the CGMQ paper.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import (
    INTEGER_KERNEL_BITS,
    Granularity,
    GridForm,
    Role,
    intervals,
    rounded_step,
)
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.graph.nodes import float_attribute, standard_op

_SIGNIFICANT_BITS: Final = {Role.ACTIVATION: 1, Role.WEIGHT: 3, Role.BIAS: 3}
"""How many significant bits a step has, by role.

A product of two 8-bit codes and a weight's step of 3 bits takes 19 of the 24 bits of float32, which
leaves 5 bits for sums. Steps of activations are powers of two, because activations are also added
to each other (residual Add).
"""

_SLOPE_BITS: Final = 12
"""How many significant bits slope and offset of a HardSigmoid on 8-bit codes have."""

FloatArray = npt.NDArray[np.float32]


def exact_ranges(
    spec: QuantizerSpec, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Moves the ends of ranges so that steps are exact, if the spec asks for exact steps.

    Ranges of 16 bits stay as they are, because integer kernels have at most 8 bits. With a gate per
    element, the step of the widest grid of at most 8 bits is rounded; the steps of the grids nested
    in it are multiples of it.

    Args:
        spec: The quantizer.
        low: Starts of the ranges, float32, in ``spec.range_shape``.
        high: Ends of the ranges, as ``low``.

    Returns:
        ``(low, high)``, for which ``(high - low) / intervals`` is the rounded step to the last bit.
        Without ``spec.exact`` these are the arguments themselves.
    """
    if not spec.exact:
        return low, high
    low, high = low.copy(), high.copy()
    for index, width in enumerate(_widths_of_ranges(spec)):
        if width <= INTEGER_KERNEL_BITS:
            low[index], high[index] = exact_range(spec, low[index], high[index], width)
    return low, high


def _widths_of_ranges(spec: QuantizerSpec) -> tuple[int, ...]:
    """Returns the width whose step decides each range, in the order of the ranges."""
    quantized = spec.ladder.quantized
    if spec.granularity is not Granularity.ELEMENT:
        return quantized
    kernel = [width for width in quantized if width <= INTEGER_KERNEL_BITS]
    return (kernel[-1],) if kernel else ()


def exact_range(
    spec: QuantizerSpec, low: FloatArray, high: FloatArray, width: int
) -> tuple[FloatArray, FloatArray]:
    """Moves the ends of the ranges of one width so that their steps are exact.

    Args:
        spec: The quantizer; its field ``exact`` does not matter here.
        low: Starts of the ranges, float32, of any shape.
        high: Ends of the ranges, as ``low``.
        width: The width, of at most 8 bits.

    Returns:
        ``(low, high)``, as :func:`exact_ranges` returns them.
    """
    count = np.float32(intervals(width, spec.form))
    step = rounded_step((high - low) / count, _SIGNIFICANT_BITS[spec.role])
    if spec.form.is_symmetric:
        end = step * (count / np.float32(2))
        return -end, end
    zero_point = np.zeros_like(step)
    if spec.form is GridForm.AFFINE:
        # Ties round to the even code. onnxruntime's integer Add and Mul add the zero point before
        # they round, QuantizeLinear afterwards: the same code results only if the zero point is
        # even. Sums of powers of two often lie halfway between two codes.
        unit = np.float32(2 if width == INTEGER_KERNEL_BITS else 1)
        zero_point = unit * np.clip(np.round(-low / (unit * step)), np.float32(0), count // unit)
    return -zero_point * step, (count - zero_point) * step


def exact_step_above(spec: QuantizerSpec, step: FloatArray) -> FloatArray:
    """Returns the smallest exact step that is not below a step, if the spec asks for exact steps.

    A range whose step is at least this stays so when :func:`exact_ranges` rounds it.
    """
    return rounded_step(step, _SIGNIFICANT_BITS[spec.role], up=True) if spec.exact else step


def round_slopes(graph: ir.Graph) -> None:
    """Rounds slope and offset of every HardSigmoid of quantized values to 12 bits, in place.

    With exact steps, float and integer kernels then compute the same codes. With a slope of 1/6,
    every third code would lie halfway between two codes of the result, and the rounding errors of
    a kernel would decide between them. The slope changes by 0.012 % at most.
    """
    for node in graph:
        source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if standard_op(node) != "HardSigmoid" or source is None or not is_gated_quantizer(source):
            continue
        for name, default in (("alpha", 0.2), ("beta", 0.5)):
            number = np.array(float_attribute(node, name, default), np.float32)
            rounded = float(rounded_step(number, _SLOPE_BITS))
            node.attributes[name] = ir.AttrFloat32(name, rounded)
