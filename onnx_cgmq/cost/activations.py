"""Counts the peak bytes of activations, as a cost of widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import Amount, CostKind
from onnx_cgmq.cost.geometry import Array
from onnx_cgmq.cost.protocol import listing
from onnx_cgmq.gating.live_sets import LiveSet

_FLOAT = np.array(FLOAT_BITS, dtype=np.int64)


def peak_bytes(sets: Sequence[LiveSet], widths: Widths) -> int:
    """Counts the bytes of the largest live set, for one sample.

    Every activation counts with its own width, or with those of its elements. The bits of a set are
    added up and then rounded up to whole bytes.

    Args:
        sets: The live sets.
        widths: Widths by tensor name. Activations without an entry are float.
    """
    return -(-max((_bits(item, widths) for item in sets), default=0) // 8)


@dataclass(frozen=True)
class ActivationCost:
    """Peak bytes of activations, as a cost of widths.

    Attributes:
        sets: The live sets.
    """

    kind: ClassVar[CostKind] = CostKind.ACTIVATIONS

    sets: Sequence[LiveSet]

    @property
    def float_cost(self) -> int:
        """The peak bytes of the float model."""
        return peak_bytes(self.sets, {})

    def total(self, widths: Widths) -> int:
        """Counts the peak bytes at some widths."""
        return peak_bytes(self.sets, widths)

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """Estimates how many bytes each gate saves (see the protocol ``Cost``).

        Only sets that are larger than the limit count, or the largest sets if none is. A gate saves
        the most that it takes off one of them.
        """
        bits = [_bits(item, widths) for item in self.sets]
        border = min(8 * int(limit) + 1, max(bits, default=0))
        result = self._zeros(widths)
        for item, size in zip(self.sets, bits, strict=True):
            if size < border:
                continue
            for name, elements in item.elements.items():
                if name in widths:
                    saved = _per_gate(elements, widths[name]) * (upper[name] - lower[name]) / 8
                    result[name] = np.maximum(result[name], saved)
        return result

    def growth(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """Counts the bytes that each gate alone adds to the peak, but for the rounding to bytes."""
        bits = [_bits(item, widths) for item in self.sets]
        peak = max(bits, default=0)
        result = self._zeros(widths)
        for item, size in zip(self.sets, bits, strict=True):
            for name, elements in item.elements.items():
                if name in widths:
                    added = _per_gate(elements, widths[name]) * (wider[name] - widths[name])
                    result[name] = np.maximum(result[name], (size + added - peak) / 8)
        return result

    def dominated_by(self, widths: Widths) -> str:
        """Names the largest activations of the largest live set."""
        largest = max(self.sets, key=lambda item: _bits(item, widths))
        alone = {name: LiveSet(0, {name: count}) for name, count in largest.elements.items()}
        shares = {name: _bits(item, widths) for name, item in alone.items()}
        if largest.fixed_bits:
            shares["without a quantizer"] = largest.fixed_bits
        return f"{listing('tensors', shares)}, which are needed at the same time"

    def _zeros(self, widths: Widths) -> dict[str, Array]:
        names = {name: None for item in self.sets for name in item.elements if name in widths}
        return {name: np.zeros(np.shape(widths[name])) for name in names}


def _bits(item: LiveSet, widths: Widths) -> int:
    """Counts the bits of a live set."""
    return item.fixed_bits + sum(
        -(-elements * int(bits.sum()) // bits.size)
        for name, elements in item.elements.items()
        for bits in (widths.get(name, _FLOAT),)
    )


def _per_gate(elements: int, gates: npt.NDArray[np.int64]) -> float:
    """Returns the number of elements that share one gate."""
    return elements / max(1, gates.size)
