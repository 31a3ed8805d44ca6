"""CostModel: all costs of one gated graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import onnx_ir as ir

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.plan import PlanCost
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.cost.activations import ActivationCost
from onnx_cgmq.cost.bops import FLOAT_BOPS_PER_MAC, Widths, bops, total_macs
from onnx_cgmq.cost.bound import Amount, Bounds, CostKind, parse_bounds
from onnx_cgmq.cost.budget import Budget, Constraint
from onnx_cgmq.cost.macs import MacOp, mac_ops
from onnx_cgmq.cost.operations import BopsCost
from onnx_cgmq.cost.protocol import Cost
from onnx_cgmq.cost.size import SizeCost, Storage
from onnx_cgmq.cost.table import TableCost
from onnx_cgmq.gating.live_sets import LiveSet, live_sets
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.settings.cost_table import CostTable


class CostModel:
    """Counts what the widths of one gated graph cost.

    Attributes:
        ops: The products of its MAC nodes.
        specs: The quantizers by tensor name.
        macs: Number of multiply-accumulates for one sample.
        table: Cost table of the target, if it has one.
    """

    def __init__(
        self,
        ops: Sequence[MacOp],
        specs: Mapping[str, QuantizerSpec],
        *,
        storage: Storage | None = None,
        table: CostTable | None = None,
        live: Callable[[], Sequence[LiveSet]] = tuple,
    ) -> None:
        """Makes a cost model of its parts.

        Args:
            ops: The products of the MAC nodes.
            specs: The quantizers by tensor name.
            storage: What decides the size besides the widths.
            table: Cost table of the target.
            live: Finds the live sets. It is called when they are first needed, and only once.
        """
        self.ops = tuple(ops)
        self.specs = dict(specs)
        self.macs = total_macs(self.ops)
        self.table = table
        self._storage = storage or Storage()
        self._find_live = live

    @classmethod
    def of(cls, gated: ir.Model, table: CostTable | None = None) -> CostModel:
        """Makes the cost model of a gated model.

        Args:
            gated: The gated model.
            table: Cost table of the target, if it has one.

        Raises:
            ModelError: A shape that a cost needs is unknown or does not fit.
        """
        specs = {name: spec for name, (_, spec) in quantizer_nodes(gated).items()}
        ops, storage = mac_ops(gated), Storage.of(gated)
        return cls(ops, specs, storage=storage, table=table, live=lambda: live_sets(gated))

    def cost(self, kind: CostKind) -> Cost | None:
        """Returns the cost of a kind; ``None`` for the table cost without a table."""
        if kind is CostKind.BOPS:
            return BopsCost(self.ops)
        if kind is CostKind.SIZE:
            return SizeCost(self._storage, self.specs)
        if kind is CostKind.ACTIVATIONS:
            return self._activations
        if self.table is None:
            return None
        weights = {name for name, spec in self.specs.items() if spec.role is Role.WEIGHT}
        ladders = {name: spec.ladder for name, spec in self.specs.items()}
        return TableCost(self.ops, self.table, ladders, frozenset(weights))

    def budget(self, bounds: Bounds) -> Budget:
        """Makes a budget of bounds on costs of this graph.

        Raises:
            BoundError: A bound can't be read, or needs a cost table and the target has none.
        """
        unit = "" if self.table is None else self.table.unit
        constraints = []
        for bound in parse_bounds(bounds, self._float_cost, unit):
            cost = self.cost(bound.kind)
            assert cost is not None  # parsing has refused it
            constraints.append(Constraint(cost, bound))
        return Budget(constraints, self.specs)

    def plan_cost(self, widths: Widths, *, peak: bool = False) -> PlanCost:
        """Counts the figures of a plan's cost.

        Args:
            widths: Widths by tensor name.
            peak: Whether to count the peak bytes of activations too.
        """
        by_node = bops(self.ops, widths)
        total = sum(by_node.values())
        table = self.cost(CostKind.TABLE)
        return PlanCost(
            bops=total,
            rbop=total / (FLOAT_BOPS_PER_MAC * self.macs) if self.macs else 0.0,
            macs=self.macs,
            weight_bytes=self._storage.total_bytes(self.specs, widths),
            bops_by_node=by_node,
            peak_activation_bytes=self._activations.total(widths) if peak else None,
            table_cost=None if table is None else float(table.total(widths)),
            table_unit=None if self.table is None else self.table.unit,
        )

    @cached_property
    def _activations(self) -> ActivationCost:
        return ActivationCost(self._find_live())

    def _float_cost(self, kind: CostKind) -> Amount | None:
        cost = self.cost(kind)
        return None if cost is None else cost.float_cost
