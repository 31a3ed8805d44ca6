"""What every cost can be asked, so that bounds on any of them are kept in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import Amount, CostKind
from onnx_cgmq.cost.geometry import Array

_SHOWN = 3


class Cost(Protocol):
    """A cost of an assignment of widths, which never falls when a width grows.

    That is what the guarantee rests on: the narrowest widths have the smallest cost, of every kind
    at once, and narrowing leads there from any state.
    """

    @property
    def kind(self) -> CostKind:
        """What is counted."""

    @property
    def whole(self) -> Amount:
        """The cost of the float model."""

    def total(self, widths: Widths) -> Amount:
        """The cost, exactly."""

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """What narrowing each gate from one width to the next lower one does for a limit.

        An estimate, for the order in which gates move. Above the smallest possible cost and above
        the limit it is positive for some gate that can still fall.

        Args:
            widths: Present bits, by tensor name.
            upper: Wider of the two widths of every gate.
            lower: Narrower of the two.
            limit: Largest cost allowed.

        Returns:
            By name of the tensors that have a cost, float64, in the shape of their gates.
        """

    def growth(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """What widening each gate alone costs, exactly; tensors without cost are missing."""

    def dominated_by(self, widths: Widths) -> str:
        """What has most of the cost, in words."""


def listing(
    what: str, shares: Mapping[str, Amount], details: Mapping[str, str] | None = None
) -> str:
    """The largest of some shares, by name: ``the nodes fc1 (75%: x x w1), fc2 (25%: h x w2)``."""
    total = sum(shares.values())
    largest: Sequence[tuple[str, Amount]] = sorted(shares.items(), key=lambda item: -item[1])
    names = (
        f"{name} ({float(share / total) if total else 0:.0%}{(details or {}).get(name, '')})"
        for name, share in largest[:_SHOWN]
    )
    return f"the {what} {', '.join(names)}"
