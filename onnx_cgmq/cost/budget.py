"""Several bounds as one: kept if all are, and how much each counts while gates move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import Amount, Bound, share_text, text_of
from onnx_cgmq.cost.geometry import Array
from onnx_cgmq.cost.protocol import Cost
from onnx_cgmq.errors import BoundError

Amounts = tuple[Amount, ...]
"""A cost for every bound, in their order."""

Prices = tuple[float, ...]
"""What a unit of every cost is worth, in units of the first one that counts; 0: does not count."""

Mask = npt.NDArray[np.bool_]

_LEAST_SPARE: Final = 1e-3  # of a limit: what is used up is dear, but not beyond measure


@dataclass(frozen=True)
class Constraint:
    """A cost and its limit."""

    cost: Cost
    bound: Bound


class Budget:
    """Bounds that are kept together.

    All costs are monotone in the widths, hence so is keeping the bounds: the narrowest assignment
    keeps all of them if any assignment does, and narrowing leads there from any state.

    Attributes:
        constraints: Each bound with the cost that it limits.
        bounds: The bounds.
    """

    def __init__(
        self, constraints: Iterable[Constraint], specs: Mapping[str, QuantizerSpec]
    ) -> None:
        self.constraints = tuple(constraints)
        self.bounds: tuple[Bound, ...] = tuple(item.bound for item in self.constraints)
        self._specs = specs

    @property
    def text(self) -> str:
        """The bounds as the user gave them, with commas."""
        return text_of(self.bounds)

    def costs(self, widths: Widths) -> Amounts:
        """The cost that each bound limits."""
        return tuple(item.cost.total(widths) for item in self.constraints)

    def keeps(self, costs: Amounts) -> bool:
        """Whether all costs are within their limits."""
        return all(b.is_satisfied_by(cost) for b, cost in zip(self.bounds, costs, strict=True))

    def holds(self, widths: Widths) -> bool:
        """Whether all bounds are kept; as soon as one is not, the others are not counted."""
        return all(item.bound.is_satisfied_by(item.cost.total(widths)) for item in self.constraints)

    def ratio(self, costs: Amounts) -> float:
        """Cost over limit where it is largest: at most 1 if all bounds are kept."""
        return max(
            float(c) / (float(b.limit) or 1.0) for b, c in zip(self.bounds, costs, strict=True)
        )

    def minimum(self) -> tuple[Amounts, dict[str, npt.NDArray[np.int64]]]:
        """The smallest possible costs, and the widths that have all of them."""
        widths = {
            name: np.full(spec.gate_shape, spec.ladder.widths[0], dtype=np.int64)
            for name, spec in self._specs.items()
        }
        return self.costs(widths), widths

    def check_feasible(self) -> None:
        """Checks that some assignment keeps all bounds.

        Raises:
            BoundError: None does; the message has the smallest possible cost and what dominates it.
        """
        costs, widths = self.minimum()
        refused = []
        for item, smallest in zip(self.constraints, costs, strict=True):
            bound = item.bound
            if bound.is_satisfied_by(smallest):
                continue
            share = share_text(bound.kind, smallest, item.cost.whole)
            refused.append(
                f"bound {bound.text!r} is below what is possible: the smallest is "
                f"{bound.describe(smallest)} ('{share}'), mostly by "
                f"{item.cost.dominated_by(widths)}"
            )
        if refused:
            raise BoundError(
                f"{'; '.join(refused)}; raise the bound, or allow narrower widths or pruning"
            )

    def prices(self, costs: Amounts) -> Prices:
        """How much each cost counts now.

        While bounds are violated only these count, each in shares of its limit: narrowing what
        saves nothing there would be a loss for nothing. While all are kept each counts in shares of
        what is left of it: the scarcer, the dearer, and a bound that is far away decides little.
        """
        pairs = list(zip(self.bounds, costs, strict=True))
        over = [not bound.is_satisfied_by(cost) for bound, cost in pairs]
        if any(over):
            scales = [float(b.limit) if o else None for (b, _), o in zip(pairs, over, strict=True)]
        else:
            scales = [max(float(b.limit - c), _LEAST_SPARE * float(b.limit)) for b, c in pairs]
        first = next(scale for scale in scales if scale is not None)
        return tuple(
            0.0 if scale is None else 1.0 if scale == first else first / (scale or 1.0)
            for scale in scales
        )

    def saving(
        self, prices: Prices, widths: Widths, upper: Widths, lower: Widths
    ) -> dict[str, Array]:
        """What narrowing each gate from one width to the next lower one is worth."""
        worth: dict[str, Array] = {}
        for price, item in zip(prices, self.constraints, strict=True):
            if price:
                _add(worth, price, item.cost.saving(widths, upper, lower, item.bound.limit))
        return worth

    def growth(
        self, costs: Amounts, widths: Widths, wider: Widths
    ) -> tuple[dict[str, Array], dict[str, Mask]]:
        """What widening each gate alone is worth, and whether it fits in what is left.

        Args:
            costs: Present costs, within the limits.
            widths: Present bits.
            wider: Bits to widen to.
        """
        worth: dict[str, Array] = {}
        fits: dict[str, Mask] = {}
        for price, item, cost in zip(self.prices(costs), self.constraints, costs, strict=True):
            growth = item.cost.growth(widths, wider)
            _add(worth, price, growth)
            spare = float(item.bound.limit - cost)
            for name, added in growth.items():
                fits[name] = np.asarray(fits.get(name, True) & (added <= spare))
        return worth, fits


def _add(worth: dict[str, Array], price: float, amounts: Mapping[str, Array]) -> None:
    """Adds amounts at a price."""
    for name, amount in amounts.items():
        priced = amount if price == 1.0 else price * amount
        worth[name] = worth[name] + priced if name in worth else priced
