"""What a quantizer has seen of a tensor: a sample of its values, and the ends of all of them.

A sample alone would lose the extremes of a large tensor, and every range would be clipped at
whatever the sample happened to hit. So the smallest and the largest value of everything that was
seen are kept beside the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnx_cgmq.contract.quantizer_spec import QuantizerSpec

_MOST_VALUES = 1 << 18
"""About how many values are kept of a tensor. Our choice, for time and memory."""

_FEWEST_VALUES = 1 << 10
"""How many values are kept for each range at least, if there are so many. Our choice."""


@dataclass(frozen=True)
class Observed:
    """Values with weights, in one row for each range of a quantizer.

    Attributes:
        rows: The values, float32 ``[ranges, n]``.
        shares: The part of everything seen for which each value stands, float32 ``[1, n]``; they
            add up to 1.
    """

    rows: Tensor
    shares: Tensor


class Observer:
    """Collects values of a tensor, batch after batch, in bounded memory.

    Positions are chosen at random, so that they can't fall in step with an axis of the tensor.
    """

    def __init__(self, spec: QuantizerSpec, batches: int = 1) -> None:
        """Starts with nothing seen.

        Args:
            spec: The quantizer whose ranges are to be fitted.
            batches: How many batches are expected, which share the memory.
        """
        self._spec = spec
        self._batches = max(1, batches)
        self._generator = torch.Generator().manual_seed(0)
        self._kept: list[Tensor] = []
        self._low: Tensor | None = None
        self._high: Tensor | None = None
        self._count = 0

    @torch.no_grad()
    def add(self, values: Tensor) -> None:
        """Takes values: the tensor itself, or samples of an activation ``[N, ...shape[1:]]``.

        Values that are not finite (rows of a softmax in which everything is masked) have no place
        on a grid, and count as 0.
        """
        rows = self._arranged(values.detach().float())
        if not rows.numel():
            return
        low, high = torch.aminmax(rows, dim=1, keepdim=True)
        if not torch.isfinite(high - low).all():  # NaN is both ends of its row
            rows = rows.nan_to_num(0.0, 0.0, 0.0)
            low, high = torch.aminmax(rows, dim=1, keepdim=True)
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)
        self._count += rows.shape[1]
        keep = max(_MOST_VALUES // len(rows), _FEWEST_VALUES) // self._batches + 1
        if keep < rows.shape[1]:
            chosen = torch.randint(rows.shape[1], (keep,), generator=self._generator)
            rows = rows[:, chosen]
        self._kept.append(rows.clone())

    def observed(self) -> Observed:
        """Returns the sample with the ends; each end stands for one value of all that were seen.

        Raises:
            ValueError: There was no value.
        """
        if self._low is None or self._high is None:
            raise ValueError(f"'{self._spec.tensor}' has no values to fit a range to")
        rows = torch.cat(self._kept, dim=1)
        whole = rows.shape[1] >= self._count
        share = torch.full((1, rows.shape[1]), 1 / rows.shape[1], device=rows.device)
        if whole:
            return Observed(rows, share)
        end = 1 / self._count
        ends = torch.full((1, 2), end, device=rows.device)
        return Observed(
            torch.cat([rows, self._low, self._high], dim=1),
            torch.cat([share * (1 - 2 * end), ends], dim=1),
        )

    def _arranged(self, values: Tensor) -> Tensor:
        """Arranges values in one row for each range."""
        if not self._spec.has_channels:
            return values.reshape(1, -1)
        along, block = self._spec.block_axis, self._spec.block
        if along is not None and block is not None:
            viewed = values.reshape(self._spec.view_shape)
            return viewed.movedim(along, -1).reshape(-1, block)
        axis = self._spec.axis
        assert axis is not None
        return values.movedim(axis, 0).reshape(self._spec.shape[axis], -1)


def observe_all(spec: QuantizerSpec, values: Tensor) -> Observed:
    """Observes a tensor that is there as a whole."""
    observer = Observer(spec)
    observer.add(values)
    return observer.observed()
