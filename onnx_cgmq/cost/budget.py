"""Keeps several bounds together, and decides how much each cost weighs while gates move.

How costs are weighed (:meth:`Budget.prices`) is our choice; the CGMQ paper has one bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import Amount, Bound, bounds_text, share_text
from onnx_cgmq.cost.geometry import Array
from onnx_cgmq.cost.protocol import Cost
from onnx_cgmq.errors import BoundError

Amounts = tuple[Amount, ...]
"""One cost for every bound, in the order of the bounds."""

Prices = tuple[float, ...]
"""The weight of one unit of every cost, relative to the first cost that counts; 0: not counted."""

Mask = npt.NDArray[np.bool_]

_SMALLEST_SLACK: Final = 1e-3
"""The least slack that a price is computed from, as a share of the limit.

Without it, the price of a bound with nothing left would be infinite.
"""


@dataclass(frozen=True)
class Constraint:
    """A bound, and the cost that it limits.

    Attributes:
        cost: The cost.
        bound: The bound.
    """

    cost: Cost
    bound: Bound


class Budget:
    """Bounds that are kept together.

    No cost grows when a width becomes narrower. So if any widths keep all bounds, the narrowest
    widths do, and narrowing leads there from any state.

    Attributes:
        constraints: Each bound with the cost that it limits.
        bounds: The bounds.
    """

    def __init__(
        self, constraints: Iterable[Constraint], specs: Mapping[str, QuantizerSpec]
    ) -> None:
        """Puts bounds together.

        Args:
            constraints: Each bound with the cost that it limits.
            specs: The quantizers by tensor name.
        """
        self.constraints = tuple(constraints)
        self.bounds: tuple[Bound, ...] = tuple(item.bound for item in self.constraints)
        self._specs = specs

    @property
    def text(self) -> str:
        """The bounds as the user gave them, joined by commas."""
        return bounds_text(self.bounds)

    def costs(self, widths: Widths) -> Amounts:
        """Counts the cost that each bound limits."""
        return tuple(item.cost.total(widths) for item in self.constraints)

    def keeps(self, costs: Amounts) -> bool:
        """Says whether costs keep all bounds."""
        return all(b.is_satisfied_by(cost) for b, cost in zip(self.bounds, costs, strict=True))

    def holds(self, widths: Widths) -> bool:
        """Says whether widths keep all bounds; stops counting at the first bound that is broken."""
        return all(item.bound.is_satisfied_by(item.cost.total(widths)) for item in self.constraints)

    def ratio(self, costs: Amounts) -> float:
        """Returns the largest ratio of a cost to its limit; at most 1 if all bounds are kept."""
        return max(
            float(c) / (float(b.limit) or 1.0) for b, c in zip(self.bounds, costs, strict=True)
        )

    def minimum(self) -> tuple[Amounts, dict[str, npt.NDArray[np.int64]]]:
        """Returns the smallest possible costs, and the narrowest widths, which have all of them."""
        widths = {
            name: np.full(spec.gate_shape, spec.ladder.widths[0], dtype=np.int64)
            for name, spec in self._specs.items()
        }
        return self.costs(widths), widths

    def check_feasible(self) -> None:
        """Checks that the narrowest widths keep all bounds.

        Raises:
            BoundError: They do not. The message names the smallest possible cost, the nodes or
                tensors with most of it, and, if that alone breaks the bound, the cost that not even
                pruning saves: of nodes in subgraphs, for example.
        """
        costs, widths = self.minimum()
        pruned = {name: np.zeros_like(narrowest) for name, narrowest in widths.items()}
        refused, advice = [], "raise the bound, or allow narrower widths or pruning"
        for item, smallest in zip(self.constraints, costs, strict=True):
            bound = item.bound
            if bound.is_satisfied_by(smallest):
                continue
            share = share_text(bound.kind, smallest, item.cost.float_cost)
            refused.append(
                f"bound {bound.text!r} is below what is possible: the smallest is "
                f"{bound.describe(smallest)} ('{share}'), mostly by "
                f"{item.cost.dominated_by(widths)}"
            )
            fixed = item.cost.total(pruned)
            if not bound.is_satisfied_by(fixed):
                part = "any" if fixed == smallest else bound.describe(fixed)
                refused[-1] += f", and no widths save {part} of it"
                advice = "raise the bound"
        if refused:
            raise BoundError(f"{'; '.join(refused)}; {advice}")

    def prices(self, costs: Amounts) -> Prices:
        """Computes the weight of one unit of each cost, while gates move.

        While bounds are broken, ``price = 1 / limit`` for these, and 0 for all others: to narrow a
        gate that saves nothing there would only lose accuracy.

        While all bounds are kept, ``price = 1 / slack``, where the slack of a bound is its limit
        less the cost. The less is left of a bound, the more a unit of its cost weighs.

        Args:
            costs: The present cost of every bound.

        Returns:
            The prices, divided by the first one that is not 0.
        """
        pairs = list(zip(self.bounds, costs, strict=True))
        over = [not bound.is_satisfied_by(cost) for bound, cost in pairs]
        if any(over):
            scales = [float(b.limit) if o else None for (b, _), o in zip(pairs, over, strict=True)]
        else:
            scales = [max(float(b.limit - c), _SMALLEST_SLACK * float(b.limit)) for b, c in pairs]
        first = next(scale for scale in scales if scale is not None)
        return tuple(
            0.0 if scale is None else 1.0 if scale == first else first / (scale or 1.0)
            for scale in scales
        )

    def saving(
        self, prices: Prices, widths: Widths, upper: Widths, lower: Widths
    ) -> dict[str, Array]:
        """Estimates what each gate saves when it narrows, summed over all costs at their prices.

        Args:
            prices: The price of every cost (:meth:`prices`).
            widths: Present widths by tensor name.
            upper: The width that each gate leaves.
            lower: The width that it goes to, the next narrower one.

        Returns:
            By tensor name, float64, in the shape of the gates.
        """
        total: dict[str, Array] = {}
        for price, item in zip(prices, self.constraints, strict=True):
            if price:
                _add(total, price, item.cost.saving(widths, upper, lower, item.bound.limit))
        return total

    def growth(
        self, costs: Amounts, widths: Widths, wider: Widths
    ) -> tuple[dict[str, Array], dict[str, Mask]]:
        """Counts what each gate costs when it alone widens, and whether all bounds allow that.

        Args:
            costs: Present costs, which keep all bounds.
            widths: Present widths by tensor name.
            wider: The widths to widen to.

        Returns:
            The sum over all costs at their prices, and whether the cost that is added stays within
            the slack of every bound; both by tensor name, in the shape of the gates.
        """
        total: dict[str, Array] = {}
        fits: dict[str, Mask] = {}
        for price, item, cost in zip(self.prices(costs), self.constraints, costs, strict=True):
            growth = item.cost.growth(widths, wider)
            _add(total, price, growth)
            slack = float(item.bound.limit - cost)
            for name, added in growth.items():
                fits[name] = np.asarray(fits.get(name, True) & (added <= slack))
        return total, fits


def _add(total: dict[str, Array], price: float, amounts: Mapping[str, Array]) -> None:
    """Adds amounts of one cost, at its price, to a total."""
    for name, amount in amounts.items():
        priced = amount if price == 1.0 else price * amount
        total[name] = total[name] + priced if name in total else priced
