"""Bit operations: the one formula for learning, for the bound and for reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.cost.geometry import Array
from onnx_cgmq.cost.macs import MacOp, Operand

Widths = Mapping[str, npt.NDArray[np.int64]]
"""Bits by tensor name; each array broadcasts to its tensor. Missing tensors are float (32)."""

FLOAT_BOPS_PER_MAC: Final = FLOAT_BITS * FLOAT_BITS
"""Bit operations of one multiply-accumulate of the float model."""

_FLOAT: Final[npt.NDArray[Any]] = np.array(FLOAT_BITS, dtype=np.int64)


def bops(ops: Iterable[MacOp], widths: Widths) -> dict[str, int]:
    """Bit operations of every product for one sample, by the name of its node.

    Each multiply-accumulate counts the product of the widths of its own two elements.
    """
    return {op.node: op_bops(op, widths) for op in ops}


def op_bops(op: MacOp, widths: Widths) -> int:
    """Bit operations of one product for one sample."""
    return op.bops(_bits(widths, op.a), _bits(widths, op.b))


def total_bops(ops: Iterable[MacOp], widths: Widths) -> int:
    """Bit operations of the whole graph for one sample."""
    return sum(op_bops(op, widths) for op in ops)


def total_macs(ops: Iterable[MacOp]) -> int:
    """Multiply-accumulates of the whole graph for one sample."""
    return sum(op.macs for op in ops)


def marginal_bops(ops: Iterable[MacOp], widths: Widths) -> dict[str, Array]:
    """Bit operations that one bit more of a width costs, at the present widths.

    Returns:
        By tensor name (those in ``widths`` that a MAC operator reads), float64, in the shape of
        ``widths[name]``; exact, since the cost is linear in the widths of each tensor.
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
    return widths.get(operand.name, _FLOAT)
