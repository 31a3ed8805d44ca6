"""Chooses the bounds of a curve: given ones, or a row from 8 bits to the smallest cost."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS
from onnx_cgmq.cost.bound import Amount, Bound, Bounds, CostKind, share_text
from onnx_cgmq.cost.budget import Budget
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.errors import BoundError


def curve_bounds(costs: CostModel, bounds: Bounds | None, points: int) -> tuple[Bound, ...]:
    """Returns the bounds of a curve, from the highest to the lowest.

    Args:
        costs: The cost model of the gated graph.
        bounds: The bounds that the user gives, if any; each is that of a point.
        points: How many there are by default: evenly spread, by the logarithm of the cost, from all
            tensors at 8 bits to all at their narrowest widths.

    Raises:
        BoundError: A bound can't be parsed or kept, or the bounds are on different kinds of cost.
    """
    if bounds is None:
        return _spread(costs, points)
    budget = costs.budget(bounds)
    budget.check_feasible()
    kinds = {bound.kind for bound in budget.bounds}
    if len(kinds) > 1:
        raise BoundError(
            f"the bounds of a curve are on {' and '.join(sorted(kind.value for kind in kinds))}; "
            "give bounds on one kind of cost"
        )
    by_limit = {bound.limit: bound for bound in budget.bounds}
    return tuple(by_limit[limit] for limit in sorted(by_limit, reverse=True))


def _spread(costs: CostModel, points: int) -> tuple[Bound, ...]:
    budget = costs.budget("100%")
    (smallest,), _ = budget.minimum()
    highest = cost_at_8_bits(costs, budget)
    if points < 2 or highest <= smallest:
        return (bound_at(costs, CostKind.BOPS, highest),)
    limits = np.geomspace(float(highest), max(float(smallest), 1.0), points)[1:-1]
    amounts = [highest, *(int(limit) for limit in limits), smallest]
    found = {(bound := bound_at(costs, CostKind.BOPS, a)).limit: bound for a in amounts}
    return tuple(found.values())


def cost_at_8_bits(costs: CostModel, budget: Budget) -> Amount:
    """The cost that a budget limits first, if no tensor has more than 8 bits, where that may be."""
    widths = {}
    for name, spec in costs.specs.items():
        narrow = [width for width in spec.ladder.widths if width <= INTEGER_KERNEL_BITS]
        widest = max(narrow, default=spec.ladder.widths[0])
        widths[name] = np.full(spec.gate_shape, widest, dtype=np.int64)
    return budget.costs(widths)[0]


def bound_at(costs: CostModel, kind: CostKind, limit: Amount) -> Bound:
    """The bound on a share of the float model's cost, in three digits, that just allows a cost."""
    cost = costs.cost(kind)
    assert cost is not None  # there is a bound on it
    text = share_text(kind, max(limit, Fraction(1)), cost.float_cost)
    (bound,) = costs.budget(text).bounds
    return bound
