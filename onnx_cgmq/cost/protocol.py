"""Cost: the methods that every kind of cost has, so that bounds on all kinds are kept alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import Amount, CostKind
from onnx_cgmq.cost.geometry import Array

_SHOWN = 3


class Cost(Protocol):
    """A cost of widths, which never falls when a width grows.

    The guarantee rests on this: the narrowest widths have the smallest cost of every kind, and
    narrowing leads there from any state.
    """

    @property
    def kind(self) -> CostKind:
        """The kind of the cost."""

    @property
    def float_cost(self) -> Amount:
        """The cost of the float model."""

    def total(self, widths: Widths) -> Amount:
        """Counts the cost of widths, exactly."""

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """Estimates how much of the cost each gate saves when it narrows by one width.

        The estimate decides the order in which gates move. While the cost is above the limit and
        above the smallest possible cost, it is positive for some gate that can still narrow.

        Args:
            widths: Present widths by tensor name.
            upper: The width that each gate leaves.
            lower: The width that it goes to, the next narrower one.
            limit: The largest cost that is allowed.

        Returns:
            By tensor name, float64, in the shape of the gates; only tensors that have a cost.
        """

    def growth(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """Counts what each gate adds to the cost when it alone widens, exactly.

        Args:
            widths: Present widths by tensor name.
            wider: The widths to widen to.

        Returns:
            By tensor name, float64, in the shape of the gates; only tensors that have a cost.
        """

    def dominated_by(self, widths: Widths) -> str:
        """Names the nodes or tensors with most of the cost, in words."""


def listing(
    what: str, shares: Mapping[str, Amount], details: Mapping[str, str] | None = None
) -> str:
    """Lists the largest shares: ``the nodes fc1 (75%: x x w1), fc2 (25%: h x w2)``.

    Args:
        what: What has the shares: nodes or tensors.
        shares: The shares by name.
        details: Text behind a share, by name.
    """
    total = sum(shares.values())
    largest: Sequence[tuple[str, Amount]] = sorted(shares.items(), key=lambda item: -item[1])
    names = (
        f"{name} ({float(share / total) if total else 0:.0%}{(details or {}).get(name, '')})"
        for name, share in largest[:_SHOWN]
    )
    return f"the {what} {', '.join(names)}"
