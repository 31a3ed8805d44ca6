"""The cost table of a target: what a multiply-accumulate costs for every pair of widths."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator


def _exact(value: Any) -> Any:
    """Reads a number as it is written in decimals: 0.1 is exactly a tenth."""
    if isinstance(value, Fraction):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value!r}")
    return Fraction(repr(value))


def _plain(value: Fraction) -> int | float:
    """Makes an int or a float, which JSON and messages can show, of an exact number."""
    return int(value) if value.denominator == 1 else float(value)


Price = Annotated[Fraction, BeforeValidator(_exact), PlainSerializer(_plain), Field(gt=0)]


class CostTable(BaseModel):
    """What one multiply-accumulate costs for each pair of widths of its weight and activation.

    The table must have all widths of its target, and more bits must never cost less. The guarantee
    of a bound rests on that, because a bound is kept by narrowing.

    Attributes:
        unit: The unit of the costs, such as ``cycles``, ``pJ`` or ``ms``.
        float: The cost if an operand is float, or wider than the table.
        activations: The widths of activations, ascending; they are the columns.
        weights: The rows: for each width of weights, ascending, its cost with each width of
            activations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    unit: str = Field(min_length=1)
    float: Price
    activations: tuple[int, ...] = Field(min_length=1)
    weights: dict[int, tuple[Price, ...]] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete_and_monotone(self) -> CostTable:
        for what, widths in (("activations", self.activations), ("weights", tuple(self.weights))):
            if tuple(sorted(set(widths))) != widths or widths[0] < 1:
                raise ValueError(f"{what} {widths} must be widths above 0, ascending and distinct")
        before: tuple[Fraction, ...] = (Fraction(0),) * len(self.activations)
        for width, row in self.weights.items():
            if len(row) != len(self.activations):
                raise ValueError(
                    f"the row of {width}-bit weights has {len(row)} costs for "
                    f"{len(self.activations)} widths of activations"
                )
            for index, cost in enumerate(row):
                where = f"{width}-bit weights and {self.activations[index]}-bit activations"
                if cost < before[index] or (index and cost < row[index - 1]):
                    raise ValueError(
                        f"{where} cost {_plain(cost)}, less than fewer bits do; more bits must "
                        "never cost less, because bounds are kept by narrowing"
                    )
                if cost > self.float:
                    raise ValueError(
                        f"{where} cost {_plain(cost)}, more than float ({_plain(self.float)}); no "
                        "pair may cost more than float"
                    )
            before = row
        return self

    def price(self, weight: int, activation: int) -> Fraction:
        """The cost of one multiply-accumulate.

        A width between two widths of the table costs as much as the wider one. A pruned operand (0
        bits) makes the cost 0, as in bit operations.

        Args:
            weight: Width of the weight; if two activations are multiplied, of the second.
            activation: Width of the activation.
        """
        if weight == 0 or activation == 0:
            return Fraction(0)
        row = next((row for width, row in self.weights.items() if width >= weight), None)
        columns = enumerate(self.activations)
        column = next((index for index, width in columns if width >= activation), None)
        return self.float if row is None or column is None else row[column]

    def to_toml(self) -> str:
        """The table as lines of a target's TOML file."""
        rows = (
            f"{width} = [{', '.join(str(_plain(cost)) for cost in row)}]"
            for width, row in self.weights.items()
        )
        lines = (
            "[cost]",
            f"unit = {json.dumps(self.unit, ensure_ascii=False)}",
            f"float = {_plain(self.float)}",
            f"activations = {list(self.activations)}",
            "[cost.weights]",
            *rows,
        )
        return "".join(f"{line}\n" for line in lines)
