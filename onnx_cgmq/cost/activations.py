"""Peak bytes of activations, as a cost of widths."""

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
    """Bytes of the activations that are needed at the same time, at most, for one sample.

    Every tensor counts with its own bits, of its elements if these have widths of their own; the
    bits of a set are rounded up to whole bytes together. Tensors without widths are float.
    """
    return -(-max((_bits(item, widths) for item in sets), default=0) // 8)


@dataclass(frozen=True)
class ActivationCost:
    """Peak bytes of activations.

    Attributes:
        sets: What has to be held at the same time.
    """

    kind: ClassVar[CostKind] = CostKind.ACTIVATIONS

    sets: Sequence[LiveSet]

    @property
    def whole(self) -> int:
        """Peak bytes of the float model."""
        return peak_bytes(self.sets, {})

    def total(self, widths: Widths) -> int:
        """Peak bytes at some widths."""
        return peak_bytes(self.sets, widths)

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """Bytes that each gate takes off the largest set over the limit; without, off the peak."""
        bits = [_bits(item, widths) for item in self.sets]
        border = min(8 * int(limit) + 1, max(bits, default=0))
        result = self._nothing(widths)
        for item, size in zip(self.sets, bits, strict=True):
            if size < border:
                continue
            for name, elements in item.elements.items():
                if name in widths:
                    saved = _per_gate(elements, widths[name]) * (upper[name] - lower[name]) / 8
                    result[name] = np.maximum(result[name], saved)
        return result

    def growth(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """Bytes that each gate alone adds to the peak, exactly but for the rounding to bytes."""
        bits = [_bits(item, widths) for item in self.sets]
        peak = max(bits, default=0)
        result = self._nothing(widths)
        for item, size in zip(self.sets, bits, strict=True):
            for name, elements in item.elements.items():
                if name in widths:
                    added = _per_gate(elements, widths[name]) * (wider[name] - widths[name])
                    result[name] = np.maximum(result[name], (size + added - peak) / 8)
        return result

    def dominated_by(self, widths: Widths) -> str:
        """The largest tensors of the largest set."""
        largest = max(self.sets, key=lambda item: _bits(item, widths))
        alone = {name: LiveSet(0, {name: count}) for name, count in largest.elements.items()}
        shares = {name: _bits(item, widths) for name, item in alone.items()}
        if largest.fixed_bits:
            shares["without a quantizer"] = largest.fixed_bits
        return f"{listing('tensors', shares)}, which are needed at the same time"

    def _nothing(self, widths: Widths) -> dict[str, Array]:
        names = {name: None for item in self.sets for name in item.elements if name in widths}
        return {name: np.zeros(np.shape(widths[name])) for name in names}


def _bits(item: LiveSet, widths: Widths) -> int:
    return item.fixed_bits + sum(
        -(-elements * int(bits.sum()) // bits.size)
        for name, elements in item.elements.items()
        for bits in (widths.get(name, _FLOAT),)
    )


def _per_gate(elements: int, gates: npt.NDArray[np.int64]) -> float:
    """Elements that one gate stands for."""
    return elements / max(1, gates.size)
