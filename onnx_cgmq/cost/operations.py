"""BopsCost: bit operations as a cost of widths."""

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
    """Bit operations for one sample. They are linear in the widths of each tensor.

    Attributes:
        ops: The products of the MAC nodes.
    """

    kind: ClassVar[CostKind] = CostKind.BOPS

    ops: Sequence[MacOp]

    @property
    def float_cost(self) -> int:
        """The bit operations of the float model."""
        return FLOAT_BOPS_PER_MAC * total_macs(self.ops)

    def total(self, widths: Widths) -> int:
        """Counts the bit operations at some widths."""
        return total_bops(self.ops, widths)

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """Counts the bit operations that each gate alone saves, exactly (see ``Cost``)."""
        return {
            name: slope * (upper[name] - lower[name])
            for name, slope in marginal_bops(self.ops, widths).items()
        }

    def growth(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """Counts the bit operations that each gate alone adds, exactly."""
        return self.saving(widths, wider, widths, 0)

    def dominated_by(self, widths: Widths) -> str:
        """Names the nodes with the most bit operations."""
        return listing("nodes", bops(self.ops, widths), operands(self.ops))


def operands(ops: Sequence[MacOp]) -> dict[str, str]:
    """Names the operands of each product, by :attr:`MacOp.node`: ``: x x w``."""
    return {op.node: f": {op.a.name or 'inside'} x {op.b.name or 'inside'}" for op in ops}
