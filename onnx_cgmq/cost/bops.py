"""Counts bit operations (BOPs): the one formula for learning, for bounds and for reports.

The BOPs of a model are the sum over its multiply-accumulates of weight width times activation width
(CGMQ, arXiv 2409.20138).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.cost.geometry import Array
from onnx_cgmq.cost.macs import MacOp, Operand

Widths = Mapping[str, npt.NDArray[np.int64]]
"""Widths by tensor name. Each array, int64, broadcasts to its tensor. Missing tensors are float."""

FLOAT_BOPS_PER_MAC: Final = FLOAT_BITS * FLOAT_BITS
"""Bit operations of one multiply-accumulate of the float model."""

_FLOAT: Final[npt.NDArray[Any]] = np.array(FLOAT_BITS, dtype=np.int64)


def bops(ops: Iterable[MacOp], widths: Widths) -> dict[str, int]:
    """Counts the bit operations of every product, for one sample.

    Each multiply-accumulate costs the product of the widths of its own two elements.

    Returns:
        The bit operations by :attr:`MacOp.node`.
    """
    return {op.node: op_bops(op, widths) for op in ops}


def op_bops(op: MacOp, widths: Widths) -> int:
    """Counts the bit operations of one product, for one sample."""
    return op.bops(_bits(widths, op.a), _bits(widths, op.b))


def total_bops(ops: Iterable[MacOp], widths: Widths) -> int:
    """Counts the bit operations of all products, for one sample."""
    return sum(op_bops(op, widths) for op in ops)


def total_macs(ops: Iterable[MacOp]) -> int:
    """Counts the multiply-accumulates of all products, for one sample."""
    return sum(op.macs for op in ops)


def marginal_bops(ops: Iterable[MacOp], widths: Widths) -> dict[str, Array]:
    """Counts the bit operations that each width costs if it grows by one bit.

    The counts are exact, because the cost is linear in the widths of each tensor.

    Args:
        ops: The products.
        widths: Present widths by tensor name.

    Returns:
        For every tensor in ``widths`` that a MAC node reads: float64, in the shape of its widths.
    """
    marginal: dict[str, Array] = {}
    for op in ops:
        if op.a.name in widths:
            add = op.spread_a(op.taps_b(_bits(widths, op.b)), np.shape(widths[op.a.name]))
            marginal[op.a.name] = marginal.get(op.a.name, 0.0) + add / op.samples
        if op.b.name in widths:
            add = op.spread_b(op.taps_a(_bits(widths, op.a)), np.shape(widths[op.b.name]))
            marginal[op.b.name] = marginal.get(op.b.name, 0.0) + add / op.samples
    return marginal


def _bits(widths: Widths, operand: Operand) -> npt.NDArray[Any]:
    """Returns the widths of an operand; 32 if it has none."""
    return widths.get(operand.name, _FLOAT)
