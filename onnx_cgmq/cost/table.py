"""Counts what multiply-accumulates cost by the cost table of a target."""

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
"""Number of multiply-accumulates by their pair of widths: of the weight, of the activation."""

_FLOAT = np.array(FLOAT_BITS, dtype=np.int64)


def macs_by_pair(ops: Iterable[MacOp], widths: Widths, weights: Collection[str]) -> Pairs:
    """Counts the multiply-accumulates for one sample by the pair of widths of their two elements.

    The counts are exact, because a product is bilinear: with 1 for elements of i bits and 0 for the
    others in the first operand, and likewise for j bits in the second, its value is the number of
    multiply-accumulates with the pair (i, j).

    Args:
        ops: The products of the MAC nodes.
        widths: Widths by tensor name.
        weights: Names of the weights. If both operands are activations, the second one counts as
            the weight.
    """
    total: Counter[tuple[int, int]] = Counter()
    for op in ops:
        total.update(_pairs(op, widths, weights))
    return dict(sorted(total.items()))


def price_of(pairs: Pairs, table: CostTable) -> Amount:
    """Computes what multiply-accumulates cost, exactly, in the unit of the table.

    Args:
        pairs: Number of multiply-accumulates by their pair of widths.
        table: The cost table.
    """
    total = sum((table.price(*pair) * count for pair, count in pairs.items()), Fraction(0))
    return int(total) if total.denominator == 1 else total


@dataclass(frozen=True)
class TableCost:
    """The sum of what a cost table says for the pair of widths of every multiply-accumulate.

    Attributes:
        ops: The products of the MAC nodes.
        table: The cost table.
        ladders: The ladder of every tensor by its name.
        weights: Names of the weights.
    """

    kind: ClassVar[CostKind] = CostKind.TABLE

    ops: Sequence[MacOp]
    table: CostTable
    ladders: Mapping[str, Ladder]
    weights: frozenset[str]

    @property
    def float_cost(self) -> Amount:
        """The cost of the float model."""
        return price_of({(FLOAT_BITS, FLOAT_BITS): total_macs(self.ops)}, self.table)

    def total(self, widths: Widths) -> Amount:
        """Counts the cost at some widths."""
        return price_of(macs_by_pair(self.ops, widths, self.weights), self.table)

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """Estimates what each gate saves (see the protocol ``Cost``).

        The estimate is the largest saving per width, over going down one, two or more widths. For a
        cost table may have equal costs for neighbouring widths (where a kernel unpacks narrow
        codes): to go from 8 to 4 bits then saves nothing, but is on the way to 2 bits.
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
        """Counts what each gate alone adds, exactly."""
        return {
            name: _at(levels, self._index(name, wider[name]))
            - _at(levels, self._index(name, widths[name]))
            for name, levels in self._levels(widths).items()
        }

    def dominated_by(self, widths: Widths) -> str:
        """Names the most expensive nodes."""
        pairs = {op.node: _pairs(op, widths, self.weights) for op in self.ops}
        shares = {node: price_of(counts, self.table) for node, counts in pairs.items()}
        return listing("nodes", shares, operands(self.ops))

    def _index(self, name: str, widths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns the index of widths on the ladder of a tensor."""
        return np.searchsorted(np.array(self.ladders[name].widths), widths)

    def _levels(self, widths: Widths) -> dict[str, Array]:
        """Counts what every gate would cost at each width of its ladder, all others as they are.

        Returns:
            By tensor name, ``[widths of the ladder, *shape of the gates]``.
        """
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
    """Counts the multiply-accumulates of one product by their pair of widths."""
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
    """Counts the selected elements of ``b`` that the elements of each gate of ``a`` meet."""
    return op.spread_a(op.taps_b(partner), shape)


def _met_by_b(op: MacOp, partner: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> Array:
    """Counts the selected elements of ``a`` that the elements of each gate of ``b`` meet."""
    return op.spread_b(op.taps_a(partner), shape)


def _at(levels: Array, index: npt.NDArray[np.int64]) -> Array:
    """Selects the entry of every gate, at its own index on axis 0."""
    entries: Array = np.take_along_axis(levels, index[np.newaxis], axis=0)[0]
    return entries
