"""Reads the bounds that a user sets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Final

from onnx_cgmq.errors import BoundError

Amount = int | Fraction
"""An exact cost: a whole number of bit operations or bytes, or a fraction in a table's unit."""


class CostKind(str, Enum):
    """The kind of a cost.

    BOPS: Bit operations for one sample.
    SIZE: Bytes of stored weights, biases and embedding tables.
    TABLE: Cost of the multiply-accumulates of one sample by the cost table of a target.
    ACTIVATIONS: The most bytes of activations that are needed at the same time, for one sample.
    """

    BOPS = "bops"
    SIZE = "size"
    TABLE = "cost"
    ACTIVATIONS = "activations"


@dataclass(frozen=True)
class Bound:
    """A limit on a cost.

    Attributes:
        kind: The kind of the cost.
        limit: The largest cost that is allowed, in bit operations, in bytes, or in the unit of the
            cost table.
        text: The bound as the user gave it.
        unit: Unit of the cost table; empty for other kinds.
    """

    kind: CostKind
    limit: Amount
    text: str
    unit: str = ""

    def is_satisfied_by(self, cost: Amount) -> bool:
        """Says whether a cost keeps the bound."""
        return cost <= self.limit

    @property
    def unit_text(self) -> str:
        """The unit of the limit, in words."""
        return self.unit or _UNITS[self.kind]

    def describe(self, cost: Amount) -> str:
        """Writes a cost of this kind with its unit."""
        return f"{number_text(cost)} {self.unit_text}"


BoundLike = str | float | Bound
"""One bound: a text, a share of the float model's bit operations, or a bound that was read."""

Bounds = BoundLike | Sequence[BoundLike]
"""One bound or several. A text may hold several, separated by commas."""

_UNITS: Final = {
    CostKind.BOPS: "bit operations",
    CostKind.SIZE: "bytes of weights",
    CostKind.ACTIVATIONS: "bytes of activations",
}
_UNKNOWN: Final = {
    CostKind.BOPS: "can't be checked: bit operations can't be counted here",
    CostKind.SIZE: "can't be checked: the size of the weights can't be counted here",
    CostKind.TABLE: "needs a target with a cost table; give its file a [cost] table "
    "(docs/targets.md), or bound bit operations",
    CostKind.ACTIVATIONS: "can't be checked: the file does not say which activations are needed "
    "at the same time; quantize the model with a bound on activations",
}
_FORM: Final = re.compile(
    r"(?:(?P<kind>size|cost|activations):)?"
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?P<unit>.*)",
    re.IGNORECASE,
)
_BOPS: Final = re.compile(r"(?P<prefix>[KMGT]?)BOPS?", re.IGNORECASE)
_BYTES: Final = re.compile(r"(?P<prefix>[KMGT]?)(?P<binary>I?)B(?:YTES)?", re.IGNORECASE)
_PREFIXES: Final = "KMGT"
_HELP: Final = (
    "give a share of the float model's bit operations ('0.4%'), bit operations ('12.5MBOP'), "
    "a size of the weights ('200KB', '1.5MiB', 'size:25%'), of the activations "
    "('activations:64KB'), or a cost by the target's table ('cost:1.5M', 'cost:25%')"
)


FloatCost = Callable[[CostKind], Amount | None]
"""Returns the cost of the float model, of which shares are shares; ``None`` if it is unknown."""


def parse_bounds(bounds: Bounds, float_cost: FloatCost, unit: str = "") -> tuple[Bound, ...]:
    """Reads one bound or several.

    Args:
        bounds: ``"0.4%"`` (RBOP), ``"12.5MBOP"`` (K, M, G, T; powers of 1000), ``"200KB"``,
            ``"1.5MiB"``, ``"size:25%"``; ``"activations:64KB"``, ``"activations:25%"``;
            ``"cost:1.5M"`` in the unit of the target's table, which may follow (``"cost:3ms"``),
            ``"cost:25%"``. A number is a share of the float model's bit operations (0.004 is
            0.4 %). Give several as a sequence, or as one text with commas.
        float_cost: Returns the cost of the float model, for each kind.
        unit: Unit of the target's cost table.

    Returns:
        The bounds with absolute limits, rounded down to whole operations and bytes.

    Raises:
        BoundError: A bound is no number, is not positive or not finite, or has an unknown unit; no
            bound is given; or the cost that is bounded can't be counted.
    """
    if isinstance(bounds, str):
        bounds = bounds.split(",")
    elif isinstance(bounds, (int, float, Bound)):
        bounds = (bounds,)
    if not bounds:
        raise BoundError(f"no bound is given; {_HELP}")
    return tuple(_parse(bound, float_cost, unit) for bound in bounds)


def unknown_cost(kind: CostKind, bound: BoundLike) -> BoundError:
    """Makes the error for a bound on a cost that can't be counted.

    Args:
        kind: The kind of the cost.
        bound: The bound as the user gave it.
    """
    text = bound.text if isinstance(bound, Bound) else bound
    return BoundError(f"bound {text!r} {_UNKNOWN[kind]}")


def bounds_text(bounds: Sequence[Bound]) -> str:
    """Writes bounds as one text, which :func:`parse_bounds` reads."""
    return ", ".join(bound.text for bound in bounds)


def number_text(amount: Amount) -> str:
    """Writes a cost for people: as a whole number, or with six significant digits."""
    whole = int(amount)
    return f"{whole:,}" if whole == amount else f"{float(amount):,.6g}"


def json_number(amount: Amount) -> int | float:
    """Converts a cost to a number that JSON has."""
    whole = int(amount)
    return whole if whole == amount else float(amount)


def share_text(kind: CostKind, cost: Amount, float_cost: Amount) -> str:
    """Writes the smallest share with three significant digits that surely allows a cost.

    Args:
        kind: The kind of the cost.
        cost: The cost that the bound is to allow.
        float_cost: The cost of the float model.

    Returns:
        A bound, such as ``size:25.1%``.
    """
    prefix = "" if kind is CostKind.BOPS else f"{kind.value}:"
    share = 100 * Fraction(cost) / Fraction(float_cost)
    digits = max(0, 2 - math.floor(math.log10(share)))
    return f"{prefix}{math.ceil(share * 10**digits) / 10**digits:.{digits}f}%"


def _parse(bound: BoundLike, float_cost: FloatCost, unit: str) -> Bound:
    """Reads one bound, as :func:`parse_bounds` does."""
    if isinstance(bound, Bound):
        return bound
    if isinstance(bound, (int, float)):
        if not math.isfinite(bound) or bound <= 0:
            raise BoundError(f"bound {bound!r} must be positive and finite; {_HELP}")
        limit = Fraction(bound) * _known(CostKind.BOPS, bound, float_cost)
        return Bound(CostKind.BOPS, math.floor(limit), f"{bound:%}")
    match = _FORM.fullmatch(re.sub(r"[\s_]", "", bound))
    if match is None:
        raise BoundError(f"bound {bound!r} is not a number with a unit; {_HELP}")
    number = Fraction(match["number"])
    if number <= 0:
        raise BoundError(f"bound {bound!r} must be positive; {_HELP}")
    given = CostKind(match["kind"].lower()) if match["kind"] else None
    text = bound.strip()
    if match["unit"] == "%":
        kind = given or CostKind.BOPS
        limit = number / 100 * _known(kind, bound, float_cost)
    elif given is CostKind.TABLE:
        kind = CostKind.TABLE
        _known(kind, bound, float_cost)
        limit = number * _table_factor(bound, match["unit"], unit)
    else:
        kind, factor = _factor(bound, given, match["unit"])
        _known(kind, bound, float_cost)
        limit = number * factor
    if kind is CostKind.TABLE:
        return Bound(kind, limit, text, unit)
    return Bound(kind, math.floor(limit), text)


def _known(kind: CostKind, bound: BoundLike, float_cost: FloatCost) -> Amount:
    """Returns the cost of the float model.

    Raises:
        BoundError: The cost is unknown.
    """
    amount = float_cost(kind)
    if amount is None:
        raise unknown_cost(kind, bound)
    return amount


def _factor(bound: str, given: CostKind | None, unit: str) -> tuple[CostKind, int]:
    """Reads a unit of bit operations or bytes.

    Args:
        bound: The bound as the user gave it, for errors.
        given: The kind that stands before the number, if any.
        unit: The text behind the number.

    Returns:
        The kind of the cost, and how many operations or bytes the unit stands for.

    Raises:
        BoundError: The unit is unknown, or belongs to another kind of cost.
    """
    if match := _BOPS.fullmatch(unit):
        if given is not None:
            raise BoundError(
                f"bound {bound!r}: {given.value} is in bytes, not bit operations; {_HELP}"
            )
        return CostKind.BOPS, _power(1000, match["prefix"])
    if match := _BYTES.fullmatch(unit):
        return given or CostKind.SIZE, _power(1024 if match["binary"] else 1000, match["prefix"])
    raise BoundError(f"bound {bound!r} is not a number with a unit; {_HELP}")


def _table_factor(bound: str, text: str, unit: str) -> int:
    """Reads the unit of a bound on table cost: the unit of the table, with a prefix or without.

    Args:
        bound: The bound as the user gave it, for errors.
        text: The text behind the number.
        unit: The unit of the table.

    Returns:
        How many units of the table the text stands for.

    Raises:
        BoundError: The text is another unit.
    """
    plain = re.sub(r"[\s_]", "", unit)
    for prefix in ("", *_PREFIXES):
        if text in (prefix, prefix + plain):
            return _power(1000, prefix)
    raise BoundError(f"bound {bound!r}: the target's table is in {unit}, not {text!r}; {_HELP}")


def _power(base: int, prefix: str) -> int:
    """Returns the factor of a prefix: K, M, G and T are the powers 1 to 4 of the base."""
    return int(base ** (_PREFIXES.index(prefix.upper()) + 1)) if prefix else 1
