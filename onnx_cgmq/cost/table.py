"""What multiply-accumulates cost by the table of a target, as a cost of widths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.bits import FLOAT_BITS, Ladder
from onnx_cgmq.cost.bops import Widths, total_macs
from onnx_cgmq.cost.bound import Amount, CostKind
from onnx_cgmq.cost.geometry import Array, tap_product
from onnx_cgmq.cost.macs import MacOp
from onnx_cgmq.cost.operations import operands
from onnx_cgmq.cost.protocol import listing
from onnx_cgmq.settings.cost_table import CostTable

Pairs = Mapping[tuple[int, int], int]
"""Multiply-accumulates by the bits of their weight and of their activation."""

_FLOAT = np.array(FLOAT_BITS, dtype=np.int64)


def macs_by_pair(ops: Iterable[MacOp], widths: Widths, weights: Collection[str]) -> Pairs:
    """Counts the multiply-accumulates for one sample by the widths of their two elements.

    Each counts with its own pair: a product is bilinear in the widths of its operands, so that one
    of "has i bits" and "has j bits" counts exactly those where both hold.

    Args:
        ops: The products.
        widths: Bits by tensor name.
        weights: Names of the weights. Of two activations the second counts as the weight.
    """
    total: Counter[tuple[int, int]] = Counter()
    for op in ops:
        total.update(_pairs(op, widths, weights))
    return dict(sorted(total.items()))


def price_of(pairs: Pairs, table: CostTable) -> Amount:
    """What multiply-accumulates cost, exactly, in the unit of the table."""
    total = sum((table.price(*pair) * count for pair, count in pairs.items()), Fraction(0))
    return int(total) if total.denominator == 1 else total


@dataclass(frozen=True)
class TableCost:
    """The sum over multiply-accumulates of what the table says for their widths.

    Attributes:
        ops: The products.
        table: The table.
        ladders: Widths that gates may choose, by tensor name.
        weights: Names of the weights.
    """

    kind: ClassVar[CostKind] = CostKind.TABLE

    ops: Sequence[MacOp]
    table: CostTable
    ladders: Mapping[str, Ladder]
    weights: frozenset[str]

    @property
    def whole(self) -> Amount:
        """Cost of the float model."""
        return price_of({(FLOAT_BITS, FLOAT_BITS): total_macs(self.ops)}, self.table)

    def total(self, widths: Widths) -> Amount:
        """Cost at some widths."""
        return price_of(macs_by_pair(self.ops, widths, self.weights), self.table)

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """What each gate saves alone, at the best average of this step and those below it.

        A table may be flat where a kernel unpacks narrow codes: the step from 8 to 4 bits then has
        no gain of its own, but leads to one.
        """
        result = {}
        for name, levels in self._levels(widths).items():
            best = np.zeros_like(levels)
            for index in range(1, len(levels)):
                steps = (index - np.arange(index)).reshape(-1, *[1] * (levels.ndim - 1))
                best[index] = ((levels[index] - levels[:index]) / steps).max(axis=0)
            moves = upper[name] > lower[name]
            result[name] = np.where(moves, _at(best, self._index(name, upper[name])), 0.0)
        return result

    def growth(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """What each gate adds alone, exactly."""
        return {
            name: _at(levels, self._index(name, wider[name]))
            - _at(levels, self._index(name, widths[name]))
            for name, levels in self._levels(widths).items()
        }

    def dominated_by(self, widths: Widths) -> str:
        """The most expensive nodes."""
        pairs = {op.node: _pairs(op, widths, self.weights) for op in self.ops}
        shares = {node: price_of(counts, self.table) for node, counts in pairs.items()}
        return listing("nodes", shares, operands(self.ops))

    def _index(self, name: str, widths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(np.array(self.ladders[name].widths), widths)

    def _levels(self, widths: Widths) -> dict[str, Array]:
        """Cost of the products of every gate at each width of its ladder: ``[widths, *gates]``."""
        levels: dict[str, Array] = {}
        for op in self.ops:
            a_is_weight = _a_is_weight(op, self.weights)
            for name, other, met in (
                (op.a.name, op.b.name, _met_by_a),
                (op.b.name, op.a.name, _met_by_b),
            ):
                if name not in widths or name not in self.ladders:
                    continue
                is_weight = a_is_weight == (met is _met_by_a)
                ladder = self.ladders[name].widths
                partner = widths.get(other, _FLOAT)
                total = levels.setdefault(name, np.zeros((len(ladder), *np.shape(widths[name]))))
                for bits in np.unique(partner):
                    count = met(op, partner == bits, np.shape(widths[name])) / op.samples
                    for index, width in enumerate(ladder):
                        pair = (width, int(bits)) if is_weight else (int(bits), width)
                        total[index] += count * float(self.table.price(*pair))
        return levels


def _pairs(op: MacOp, widths: Widths, weights: Collection[str]) -> Pairs:
    bits_a, bits_b = widths.get(op.a.name, _FLOAT), widths.get(op.b.name, _FLOAT)
    a_is_weight = _a_is_weight(op, weights)
    taps_b = {int(j): op.taps_b(bits_b == j) for j in np.unique(bits_b)}
    found = {}
    for i in map(int, np.unique(bits_a)):
        taps_a = op.taps_a(bits_a == i)
        for j, taps in taps_b.items():
            count = tap_product(taps_a, taps, op.tap_shape) // op.samples
            if count:
                found[(i, j) if a_is_weight else (j, i)] = count
    return found


def _a_is_weight(op: MacOp, weights: Collection[str]) -> bool:
    return op.a.name in weights and op.b.name not in weights


def _met_by_a(op: MacOp, partner: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> Array:
    return op.spread_a(op.taps_b(partner), shape)


def _met_by_b(op: MacOp, partner: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> Array:
    return op.spread_b(op.taps_a(partner), shape)


def _at(levels: Array, index: npt.NDArray[np.int64]) -> Array:
    """The entry of every gate at its own index on axis 0."""
    entries: Array = np.take_along_axis(levels, index[np.newaxis], axis=0)[0]
    return entries
