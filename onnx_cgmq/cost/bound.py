"""The bound a user sets, and the cost that must keep it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.bits import Role
from onnx_cgmq.cost.bops import (
    FLOAT_BOPS_PER_MAC,
    Widths,
    bops,
    marginal_bops,
    total_bops,
    total_macs,
)
from onnx_cgmq.cost.geometry import Array
from onnx_cgmq.cost.macs import MacOp
from onnx_cgmq.cost.size import Storage
from onnx_cgmq.errors import BoundError
from onnx_cgmq.graph.gating.quantizer_spec import QuantizerSpec
from onnx_cgmq.plan import PlanCost


class CostKind(str, Enum):
    """What is bounded: bit operations, or bytes of stored weights and biases."""

    BOPS = "bops"
    SIZE = "size"


@dataclass(frozen=True)
class Bound:
    """A limit on a cost.

    Attributes:
        kind: What is bounded.
        limit: Largest cost allowed: bit operations for one sample, or bytes.
        text: The bound as the user gave it.
    """

    kind: CostKind
    limit: int
    text: str

    def is_satisfied_by(self, cost: int) -> bool:
        """Whether a cost keeps the bound."""
        return cost <= self.limit


_FORM: Final = re.compile(
    r"(?P<size>size:)?(?P<number>[0-9.eE+-]+|nan|[+-]?inf(?:inity)?)"
    r"(?:(?P<percent>%)|(?P<bops>[KMGT]?BOPS?)|(?P<bytes>[KMGT]?I?B(?:YTES)?))",
    re.IGNORECASE,
)
_POWER: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_HELP: Final = (
    "give a share of the float model's bit operations ('0.4%'), bit operations ('12.5MBOP'), "
    "a share of its size ('size:25%'), or a size ('200KB', '1.5MiB')"
)


def parse_bound(bound: str | float | Bound, macs: int, float_bytes: int) -> Bound:
    """Reads a bound.

    Args:
        bound: ``"0.4%"`` (RBOP), ``"12.5MBOP"`` (K, M, G, T; powers of 1000), ``"200KB"``,
            ``"1.5MiB"``, ``"size:25%"``; a number is a share of the float model's bit operations
            (0.004 is 0.4 %).
        macs: Multiply-accumulates of the model for one sample.
        float_bytes: Bytes of its float weights and biases.

    Returns:
        The bound in absolute numbers, rounded down.

    Raises:
        BoundError: Not a number, not positive, not finite, or of no known unit.
    """
    if isinstance(bound, Bound):
        return bound
    if isinstance(bound, (int, float)):
        if not math.isfinite(bound) or bound <= 0:
            raise BoundError(f"bound {bound!r} must be positive and finite; {_HELP}")
        limit = math.floor(Fraction(bound) * FLOAT_BOPS_PER_MAC * macs)
        return Bound(CostKind.BOPS, limit, f"{bound:%}")
    text = re.sub(r"[\s_]", "", bound)
    match = _FORM.fullmatch(text)
    try:
        number = Fraction(match["number"]) if match else None
    except (ValueError, ZeroDivisionError):
        number = None
    if match is None or number is None:
        raise BoundError(f"bound {bound!r} is not a number with a unit; {_HELP}")
    if number <= 0:
        raise BoundError(f"bound {bound!r} must be positive; {_HELP}")
    if match["percent"]:
        share = number / 100
        if match["size"]:
            return Bound(CostKind.SIZE, math.floor(share * float_bytes), bound)
        return Bound(CostKind.BOPS, math.floor(share * FLOAT_BOPS_PER_MAC * macs), bound)
    unit = (match["bops"] or match["bytes"]).upper()
    prefix = unit[0] if unit[0] in "KMGT" else ""
    if match["bops"]:
        if match["size"]:
            raise BoundError(f"bound {bound!r}: a size is in bytes, not bit operations; {_HELP}")
        return Bound(CostKind.BOPS, math.floor(number * 1000 ** _POWER[prefix]), bound)
    base = 1024 if unit[len(prefix) :].startswith("I") else 1000
    return Bound(CostKind.SIZE, math.floor(number * base ** _POWER[prefix]), bound)


class CostModel:
    """The cost of an assignment of widths.

    Attributes:
        ops: The MAC operators.
        specs: The gated tensors by name.
        kind: What is counted.
        storage: What decides the size besides the widths.
        macs: Multiply-accumulates for one sample.
    """

    def __init__(
        self,
        ops: Sequence[MacOp],
        specs: Mapping[str, QuantizerSpec],
        kind: CostKind,
        storage: Storage | None = None,
    ) -> None:
        self.ops = tuple(ops)
        self.specs = dict(specs)
        self.kind = kind
        self.storage = storage or Storage()
        self.macs = total_macs(self.ops)

    @classmethod
    def for_bound(
        cls,
        ops: Sequence[MacOp],
        specs: Mapping[str, QuantizerSpec],
        bound: str | float | Bound,
        storage: Storage | None = None,
    ) -> tuple[CostModel, Bound]:
        """The cost model that a bound needs, and the bound, parsed.

        Raises:
            BoundError: The bound can't be parsed.
        """
        storage = storage or Storage()
        parsed = parse_bound(bound, total_macs(ops), storage.total_bytes(specs, {}))
        return cls(ops, specs, parsed.kind, storage), parsed

    def cost(self, widths: Widths) -> int:
        """Bit operations for one sample, or bytes of weights and biases."""
        if self.kind is CostKind.SIZE:
            return self.storage.total_bytes(self.specs, widths)
        return total_bops(self.ops, widths)

    def marginal(self, widths: Widths) -> dict[str, Array]:
        """What one bit more of each width costs; tensors without cost are missing.

        Bit operations are exact. The size of a tensor with many gates follows its widest one; its
        cost is shared evenly among the gates, so that each has a reason to fall.

        Returns:
            By tensor name, float64, in the shape of ``widths[name]``.
        """
        if self.kind is CostKind.BOPS:
            return marginal_bops(self.ops, widths)
        return {
            name: np.full(
                np.shape(widths[name]),
                math.prod(spec.shape) / 8 / max(1, np.size(widths[name])),
            )
            for name, spec in self.specs.items()
            if spec.role is Role.WEIGHT and name in widths
        }

    def widening(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """What widening each gate alone costs, exactly; tensors without cost are missing.

        Returns:
            By tensor name, float64, in the shape of ``widths[name]``. In size, gates below the
            widest of their tensor widen for nothing.
        """
        slopes = self.marginal(widths)
        if self.kind is CostKind.BOPS:
            return {name: slope * (wider[name] - widths[name]) for name, slope in slopes.items()}
        return {name: self._growth(name, widths[name], wider[name]) for name in slopes}

    def _growth(
        self, name: str, widths: npt.NDArray[np.int64], wider: npt.NDArray[np.int64]
    ) -> Array:
        """Bytes that a tensor grows by if one gate widens, for every gate."""
        widest = int(widths.max())
        growth = np.zeros(wider.shape)
        for width in np.unique(wider[wider > widest]):
            now, then = (
                self.storage.tensor_bytes({name: self.specs[name]}, {name: np.array(bits)})[name]
                for bits in (widest, width)
            )
            growth[wider == width] = then - now
        return growth

    def minimum(self) -> tuple[int, dict[str, npt.NDArray[np.int64]]]:
        """The smallest possible cost, and the widths that have it."""
        widths = {
            name: np.full(spec.gate_shape, spec.ladder.widths[0], dtype=np.int64)
            for name, spec in self.specs.items()
        }
        return self.cost(widths), widths

    def check_feasible(self, bound: Bound) -> None:
        """Checks that some assignment keeps a bound.

        Raises:
            BoundError: None does; the message has the smallest possible and what dominates it.
        """
        smallest, widths = self.minimum()
        if bound.is_satisfied_by(smallest):
            return
        if self.kind is CostKind.SIZE:
            shares = self.storage.tensor_bytes(self.specs, widths)
            whole = self.storage.total_bytes(self.specs, {})
            least = f"{smallest:,} bytes ('size:{_percent_above(smallest, whole)}')"
            what, details = "tensors", dict.fromkeys(shares, "")
        else:
            shares = bops(self.ops, widths)
            whole = FLOAT_BOPS_PER_MAC * self.macs
            least = f"{smallest:,} bit operations ('{_percent_above(smallest, whole)}')"
            what = "nodes"
            details = {
                op.node: f": {op.a.name or 'inside'} x {op.b.name or 'inside'}" for op in self.ops
            }
        largest = sorted(shares.items(), key=lambda item: -item[1])[:3]
        names = ", ".join(
            f"{name} ({share / smallest:.0%}{details[name]})" for name, share in largest
        )
        raise BoundError(
            f"bound {bound.text!r} is below what is possible: the smallest is {least}, mostly "
            f"by the {what} {names}; raise the bound, or allow narrower widths or pruning"
        )

    def plan_cost(self, widths: Widths) -> PlanCost:
        """Every figure of a plan's cost, whatever is bounded."""
        by_node = bops(self.ops, widths)
        total = sum(by_node.values())
        return PlanCost(
            bops=total,
            rbop=total / (FLOAT_BOPS_PER_MAC * self.macs) if self.macs else 0.0,
            macs=self.macs,
            weight_bytes=self.storage.total_bytes(self.specs, widths),
            bops_by_node=by_node,
        )


def _percent_above(part: int, whole: int) -> str:
    """A percentage that is surely enough: rounded up at the third significant digit."""
    share = 100 * part / whole
    digits = max(0, 2 - math.floor(math.log10(share)))
    return f"{math.ceil(share * 10**digits + 1e-9) / 10**digits:.{digits}f}%"
