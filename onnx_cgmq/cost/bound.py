"""The bounds a user sets: what is bounded, and how its text is read."""

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
"""A cost, exact: whole bit operations or bytes, or a fraction of the unit of a cost table."""


class CostKind(str, Enum):
    """What is bounded.

    BOPS: Bit operations for one sample.
    SIZE: Bytes of stored weights, biases and tables.
    TABLE: What multiply-accumulates cost by the table of a target, for one sample.
    ACTIVATIONS: Bytes of the activations that are needed at the same time, at most.
    """

    BOPS = "bops"
    SIZE = "size"
    TABLE = "cost"
    ACTIVATIONS = "activations"


@dataclass(frozen=True)
class Bound:
    """A limit on a cost.

    Attributes:
        kind: What is bounded.
        limit: Largest cost allowed: bit operations, bytes, or in the unit of the cost table.
        text: The bound as the user gave it.
        unit: Unit of the cost table; empty for other kinds.
    """

    kind: CostKind
    limit: Amount
    text: str
    unit: str = ""

    def is_satisfied_by(self, cost: Amount) -> bool:
        """Whether a cost keeps the bound."""
        return cost <= self.limit

    @property
    def unit_text(self) -> str:
        """The unit of costs of this kind."""
        return self.unit or _UNITS[self.kind]

    def describe(self, cost: Amount) -> str:
        """A cost of this kind with its unit."""
        return f"{number_text(cost)} {self.unit_text}"


BoundLike = str | float | Bound
Bounds = BoundLike | Sequence[BoundLike]

_UNITS: Final = {
    CostKind.BOPS: "bit operations",
    CostKind.SIZE: "bytes of weights",
    CostKind.ACTIVATIONS: "bytes of activations",
}
_UNKNOWN: Final = {
    CostKind.BOPS: "can't be counted here",
    CostKind.SIZE: "can't be counted here",
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


Whole = Callable[[CostKind], Amount | None]
"""What the float model costs, of which shares are shares; ``None`` where that can't be told."""


def parse_bounds(bounds: Bounds, whole: Whole, unit: str = "") -> tuple[Bound, ...]:
    """Reads one bound or several.

    Args:
        bounds: ``"0.4%"`` (RBOP), ``"12.5MBOP"`` (K, M, G, T; powers of 1000), ``"200KB"``,
            ``"1.5MiB"``, ``"size:25%"``; ``"activations:64KB"``, ``"activations:25%"``;
            ``"cost:1.5M"`` in the unit of the target's table, which may follow (``"cost:3ms"``),
            ``"cost:25%"``. A number is a share of the float model's bit operations (0.004 is
            0.4 %). Several are a sequence, or one text with commas.
        whole: What the float model costs, by kind.
        unit: Unit of the target's cost table.

    Returns:
        The bounds in absolute numbers, rounded down to whole operations and bytes.

    Raises:
        BoundError: Not a number, not positive, not finite, of no known unit, or none at all; or on
            a cost that can't be told here.
    """
    if isinstance(bounds, str):
        bounds = bounds.split(",")
    elif isinstance(bounds, (int, float, Bound)):
        bounds = (bounds,)
    if not bounds:
        raise BoundError(f"no bound is given; {_HELP}")
    return tuple(_parse(bound, whole, unit) for bound in bounds)


def unknown_cost(kind: CostKind, bound: BoundLike) -> BoundError:
    """The error on a bound whose cost can't be counted."""
    text = bound.text if isinstance(bound, Bound) else bound
    return BoundError(f"bound {text!r} {_UNKNOWN[kind]}")


def text_of(bounds: Sequence[Bound]) -> str:
    """Bounds as :func:`parse_bounds` reads them."""
    return ", ".join(bound.text for bound in bounds)


def number_text(amount: Amount) -> str:
    """A number for people: whole, or with six significant digits."""
    whole = int(amount)
    return f"{whole:,}" if whole == amount else f"{float(amount):,.6g}"


def plain(amount: Amount) -> int | float:
    """A number for JSON."""
    whole = int(amount)
    return whole if whole == amount else float(amount)


def share_text(kind: CostKind, part: Amount, whole: Amount) -> str:
    """A bound that surely allows a cost: a share, rounded up at the third significant digit."""
    prefix = "" if kind is CostKind.BOPS else f"{kind.value}:"
    share = 100 * Fraction(part) / Fraction(whole)
    digits = max(0, 2 - math.floor(math.log10(share)))
    return f"{prefix}{math.ceil(float(share) * 10**digits + 1e-9) / 10**digits:.{digits}f}%"


def _parse(bound: BoundLike, whole: Whole, unit: str) -> Bound:
    if isinstance(bound, Bound):
        return bound
    if isinstance(bound, (int, float)):
        if not math.isfinite(bound) or bound <= 0:
            raise BoundError(f"bound {bound!r} must be positive and finite; {_HELP}")
        limit = Fraction(bound) * _known(CostKind.BOPS, bound, whole)
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
        limit = number / 100 * _known(kind, bound, whole)
    elif given is CostKind.TABLE:
        kind = CostKind.TABLE
        _known(kind, bound, whole)
        limit = number * _table_factor(bound, match["unit"], unit)
    else:
        kind, factor = _factor(bound, given, match["unit"])
        _known(kind, bound, whole)
        limit = number * factor
    if kind is CostKind.TABLE:
        return Bound(kind, limit, text, unit)
    return Bound(kind, math.floor(limit), text)


def _known(kind: CostKind, bound: BoundLike, whole: Whole) -> Amount:
    """The cost of the float model.

    Raises:
        BoundError: It can't be told.
    """
    amount = whole(kind)
    if amount is None:
        raise unknown_cost(kind, bound)
    return amount


def _factor(bound: str, given: CostKind | None, unit: str) -> tuple[CostKind, int]:
    """What a unit stands for.

    Raises:
        BoundError: Nothing, or something else than what is bounded.
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
    plain = re.sub(r"[\s_]", "", unit)
    for prefix in ("", *_PREFIXES):
        if text in (prefix, prefix + plain):
            return _power(1000, prefix)
    raise BoundError(f"bound {bound!r}: the target's table is in {unit}, not {text!r}; {_HELP}")


def _power(base: int, prefix: str) -> int:
    return int(base ** (_PREFIXES.index(prefix.upper()) + 1)) if prefix else 1
