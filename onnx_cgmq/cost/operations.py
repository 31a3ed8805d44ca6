"""Bit operations as a cost of widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from onnx_cgmq.cost.bops import (
    FLOAT_BOPS_PER_MAC,
    Widths,
    bops,
    marginal_bops,
    total_bops,
    total_macs,
)
from onnx_cgmq.cost.bound import Amount, CostKind
from onnx_cgmq.cost.geometry import Array
from onnx_cgmq.cost.macs import MacOp
from onnx_cgmq.cost.protocol import listing


@dataclass(frozen=True)
class BopsCost:
    """Bit operations for one sample, linear in the widths of each tensor.

    Attributes:
        ops: The products.
    """

    kind: ClassVar[CostKind] = CostKind.BOPS

    ops: Sequence[MacOp]

    @property
    def whole(self) -> int:
        """Bit operations of the float model."""
        return FLOAT_BOPS_PER_MAC * total_macs(self.ops)

    def total(self, widths: Widths) -> int:
        """Bit operations at some widths."""
        return total_bops(self.ops, widths)

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """Bit operations that each gate saves alone, exactly."""
        return {
            name: slope * (upper[name] - lower[name])
            for name, slope in marginal_bops(self.ops, widths).items()
        }

    def growth(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """Bit operations that each gate adds alone, exactly."""
        return self.saving(widths, wider, widths, 0)

    def dominated_by(self, widths: Widths) -> str:
        """The nodes with the most bit operations."""
        return listing("nodes", bops(self.ops, widths), operands(self.ops))


def operands(ops: Sequence[MacOp]) -> dict[str, str]:
    """What each product multiplies, by the name of its node."""
    return {op.node: f": {op.a.name or 'inside'} x {op.b.name or 'inside'}" for op in ops}
