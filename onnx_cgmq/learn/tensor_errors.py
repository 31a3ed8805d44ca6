"""Measures the error of every quantized tensor, and how its values are spread, for reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.torch_state import plain_torch

MOST_SAMPLES: Final = 32
"""So that it takes seconds: an error is a mean over all values of these samples."""

_KEPT: Final = 8192  # values of a tensor of which its histogram is made
_BINS: Final = 64

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TensorError:
    """The error of one quantized tensor. Errors are relative: root mean squares, divided.

    Attributes:
        own: Error of the tensor alone. For an activation it is what its quantizer makes of the
            values that it gets; for a weight or bias, how far it is from the float model's.
            ``None`` if these values are all 0.
        from_float: Error against the float model. For an activation it holds what all quantizers
            before have done too. ``None`` if the float model has other shapes, or only zeros.
        counts: The histogram of some of these values (of a weight: in the float model): how many
            are in each bin.
        edges: The ends of the bins, one more than ``counts``.
    """

    own: float | None
    from_float: float | None
    counts: npt.NDArray[np.int64] = field(repr=False)
    edges: Floats = field(repr=False)


@plain_torch()
def tensor_errors(
    mirror: Mirror, held_out: Samples, most_samples: int = MOST_SAMPLES
) -> dict[str, TensorError]:
    """Measures the error of every quantized tensor on held-out samples.

    Args:
        mirror: The trained mirror; it is not changed.
        held_out: The samples, of which at most ``most_samples`` are drawn.
        most_samples: See there.

    Returns:
        The errors by the name of the tensor, in graph order; tensors that no sample reached are
        left out.
    """
    float_mirror = Mirror(mirror.model).to(mirror.device)
    samples = held_out.drawn(most_samples)
    sums = {
        name: _Sums(of_samples=len(samples) if q.spec.role is Role.ACTIVATION else None)
        for name, q in mirror.quantizers.items()
    }
    with torch.no_grad(), float_mirror.unquantized():
        for batch in samples.batches(1):  # values of the whole float model are in memory at once
            inputs = tensors(batch.inputs)
            expected: dict[str, Tensor] = {}
            keepers = {name: partial(expected.__setitem__, name) for name in sums}
            with float_mirror.shown(keepers):
                float_mirror(inputs)
            with _seen(mirror, partial(_compare, sums, expected)):
                mirror(inputs)
    return {name: found.error() for name, found in sums.items() if found.runs}


def _compare(
    sums: Mapping[str, _Sums],
    expected: dict[str, Tensor],
    name: str,
    taken: Tensor,
    given: Tensor,
) -> None:
    meant = expected.pop(name, None)
    sums[name].add(taken.cpu(), given.cpu(), None if meant is None else meant.cpu())


@contextmanager
def _seen(mirror: Mirror, show: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Shows what each quantizer takes and gives in the block, with the name of its tensor."""

    def hook(name: str) -> Callable[..., None]:
        def seen(_: Any, taken: tuple[Tensor, ...], given: tuple[Tensor, ...]) -> None:
            show(name, taken[0], given[0])

        return seen

    handles = [q.register_forward_hook(hook(name)) for name, q in mirror.quantizers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Sums:
    """What is summed up of one tensor, run by run.

    Args:
        of_samples: Number of samples with which an activation varies; ``None`` for a weight or
            bias, which is always the same.
    """

    def __init__(self, of_samples: int | None) -> None:
        self.runs = 0
        self._varies = of_samples is not None
        self._kept = -(-_KEPT // (of_samples or 1))
        self._values: list[npt.NDArray[np.float32]] = []
        self._own = _Ratio()
        self._from_float = _Ratio()

    def add(self, x: Tensor, y: Tensor, expected: Tensor | None) -> None:
        """Adds a run: what the quantizer took, what it gave, and what the float model has."""
        self.runs += 1
        if self.runs > 1 and not self._varies:
            return
        meant = expected if expected is not None and not self._varies else x
        self._own.add(y, meant)
        if expected is not None and expected.shape == y.shape:
            self._from_float.add(y, expected)
        values = meant.reshape(-1)
        values = values[:: max(1, -(-len(values) // self._kept))]
        self._values.append(values[torch.isfinite(values)].numpy().copy())

    def error(self) -> TensorError:
        values = np.concatenate(self._values)
        counts, edges = np.histogram(values.astype(np.float64), bins=_BINS)
        return TensorError(self._own.root(), self._from_float.root(), counts, edges)


class _Ratio:
    """Squares of differences, over squares of the values that are meant; finite ones only."""

    def __init__(self) -> None:
        self._differences = 0.0
        self._squares = 0.0

    def add(self, found: Tensor, meant: Tensor) -> None:
        known = torch.isfinite(meant)
        difference = torch.where(known, found - meant, 0.0)
        self._differences += float(difference.square().sum(dtype=torch.float64))
        self._squares += float(torch.where(known, meant, 0.0).square().sum(dtype=torch.float64))

    def root(self) -> float | None:
        return math.sqrt(self._differences / self._squares) if self._squares else None
