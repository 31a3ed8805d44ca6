"""The costs of a deployed model, counted from the model alone, and whether they keep bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx_cgmq.contract.bits import FLOAT_BITS, Role
from onnx_cgmq.cost.bops import FLOAT_BOPS_PER_MAC
from onnx_cgmq.cost.bound import Amount, Bound, Bounds, CostKind, parse_bounds, unknown_cost
from onnx_cgmq.cost.table import price_of
from onnx_cgmq.errors import VerificationError
from onnx_cgmq.inspection import Report
from onnx_cgmq.settings.cost_table import CostTable


@dataclass(frozen=True)
class FileCosts:
    """The costs of a deployed model, as counted from the model alone.

    Attributes:
        report: What the model says about itself.
        table: The cost table of the target, if it has one.
    """

    report: Report
    table: CostTable | None

    def parse(self, bounds: Bounds) -> tuple[Bound, ...]:
        """Parses bounds.

        Raises:
            BoundError: A bound can't be parsed, or its cost can't be counted.
        """
        return parse_bounds(bounds, self._float_cost, "" if self.table is None else self.table.unit)

    def check(self, bound: Bound) -> None:
        """Checks that the model keeps a bound.

        Raises:
            BoundError: The cost that it limits can't be counted.
            VerificationError: The model breaks the bound.
        """
        cost = self._cost(bound.kind)
        if cost is None:
            raise unknown_cost(bound.kind, bound)
        if bound.is_satisfied_by(cost):
            return
        float_cost = self._float_cost(bound.kind)
        share = f" ({float(cost / float_cost):.3%} of the float model)" if float_cost else ""
        raise VerificationError(
            f"the model costs {bound.describe(cost)}{share}, but the bound {bound.text!r} allows "
            f"{bound.describe(bound.limit)}; quantize it again with this bound"
        )

    def _cost(self, kind: CostKind) -> Amount | None:
        if kind is CostKind.BOPS:
            return self.report.bops
        if kind is CostKind.SIZE:
            return self.report.weight_bytes
        if kind is CostKind.ACTIVATIONS:
            return self.report.peak_activation_bytes
        return None if self.table is None else price_of(self.report.pairs, self.table)

    def _float_cost(self, kind: CostKind) -> Amount | None:
        """Returns the cost of the float model, or ``None`` if it is unknown."""
        report = self.report
        if kind is CostKind.BOPS:
            return FLOAT_BOPS_PER_MAC * report.macs
        if kind is CostKind.SIZE:
            stored = [item for item in report.tensors.values() if item.role is not Role.ACTIVATION]
            return FLOAT_BITS // 8 * sum(math.prod(tensor.shape) for tensor in stored)
        if kind is CostKind.ACTIVATIONS:
            return report.float_activation_bytes
        if self.table is None:
            return None
        return price_of({(FLOAT_BITS, FLOAT_BITS): report.macs}, self.table)
