"""Ranges whose steps have so few bits that float and integer kernels compute the same."""

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
"""Of steps. A code of 8 bits each, 3 bits of a weight's step: 19 bits of the 24 that float32 has.

Activations have powers of two, since their codes are also added to each other (residual Add).
"""

_SLOPE_BITS: Final = 12
"""Significant bits of what HardSigmoid multiplies codes of 8 bits with, and adds."""

FloatArray = npt.NDArray[np.float32]


def exact_ranges(
    spec: QuantizerSpec, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The ranges nearest to given ones whose steps are exact; those of other specs as they are.

    Grids of 16 bits keep their ranges: no integer kernel runs them. With a gate per element the
    step of the widest grid of at most 8 bits is rounded; those nested in it are multiples of it.

    Args:
        spec: The quantizer.
        low: Range starts, float32, ``spec.range_shape``.
        high: Range ends, likewise.

    Returns:
        ``(low, high)``, for which ``(high - low) / intervals`` is the rounded step to the last bit.
    """
    if not spec.exact:
        return low, high
    low, high = low.copy(), high.copy()
    for index, width in enumerate(_widths_of_ranges(spec)):
        if width <= INTEGER_KERNEL_BITS:
            low[index], high[index] = exact_range(spec, low[index], high[index], width)
    return low, high


def _widths_of_ranges(spec: QuantizerSpec) -> tuple[int, ...]:
    quantized = spec.ladder.quantized
    if spec.granularity is not Granularity.ELEMENT:
        return quantized
    kernel = [width for width in quantized if width <= INTEGER_KERNEL_BITS]
    return (kernel[-1],) if kernel else ()


def exact_range(
    spec: QuantizerSpec, low: FloatArray, high: FloatArray, width: int
) -> tuple[FloatArray, FloatArray]:
    """The same for the ranges of one width of at most 8 bits, of any shape."""
    count = np.float32(intervals(width, spec.form))
    step = rounded_step((high - low) / count, _SIGNIFICANT_BITS[spec.role])
    if spec.form.is_symmetric:
        end = step * (count / np.float32(2))
        return -end, end
    zero_point = np.zeros_like(step)
    if spec.form is GridForm.AFFINE:
        # onnxruntime's integer Add and Mul add the zero point before they round a tie to the even
        # code, QuantizeLinear afterwards: the same for even ones. Sums of powers of two often tie.
        unit = np.float32(2 if width == INTEGER_KERNEL_BITS else 1)
        zero_point = unit * np.clip(np.round(-low / (unit * step)), np.float32(0), count // unit)
    return -zero_point * step, (count - zero_point) * step


def round_slopes(graph: ir.Graph) -> None:
    """Gives HardSigmoid of quantized values a slope and an offset of few bits, in place.

    With exact steps its codes are exact then, in floats as in integers: 1/6 makes every third code
    a tie, which kernels break by their rounding errors. The slope changes by 0.012 % at most.
    """
    for node in graph:
        source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if standard_op(node) != "HardSigmoid" or source is None or not is_gated_quantizer(source):
            continue
        for name, default in (("alpha", 0.2), ("beta", 0.5)):
            number = np.array(float_attribute(node, name, default), np.float32)
            rounded = float(rounded_step(number, _SLOPE_BITS))
            node.attributes[name] = ir.AttrFloat32(name, rounded)
