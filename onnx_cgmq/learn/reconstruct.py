"""Reconstructs a network part by part, against the float model's values, from unlabelled samples.

Each part gets the values of the quantized parts before it, and learns to give what the float model
gives there. First its ranges of activations are searched. Then weights learn how to be rounded:
each may move by half a step at most, by the sign of its gradient (as SignRound does, arXiv
2309.05516), which needs few steps. Biases and the ranges of activations learn with Adam. While a
part learns, quantization of activations is dropped at random (QDrop, arXiv 2203.05740), which keeps
few samples from being learned by heart. The state that is nearest to the float model is kept, which
may be the first one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn import processes
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.distance import distance
from onnx_cgmq.learn.malloc import FreedMemory
from onnx_cgmq.learn.range_search import search_ranges
from onnx_cgmq.learn.shelf import Shelf, Values
from onnx_cgmq.mirror.core.parts import Part
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.blocks import of_elements
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.torch_state import plain_torch

_DROP: Final = 0.5
"""How often the quantization of an activation is dropped. QDrop's share; we drop it for the whole
tensor and not for single elements, which costs no time."""

_REACH: Final = 0.5
"""How many steps of its grid a weight may move: to the next code up or down, no further."""

_REACHES: Final = 2.0
"""How often a weight can cross its reach in all training steps together, as the rate falls to zero.
Our choice."""

_LARGEST_SIGN_RATE: Final = 0.05
"""The most steps of its grid by which a weight moves in one training step. Our choice."""

_RANGE_RATE: Final = 1e-3
"""Peak learning rate of the logarithm of ranges. Our choice."""

_BIAS_RATE: Final = 1e-3
"""Peak learning rate of biases, times the largest bias of the tensor. Our choice."""

_STEPS_JUDGED: Final = 20
"""After so many steps each, a part is judged without gradients, and the best state is kept. Our
choice, as that of the batches: it costs a tenth of the time."""

_BATCHES_JUDGED: Final = 8

_BATCHES_SEARCHED: Final = 2
"""Batches on which the ranges of a part are searched. Our choice."""


def reconstruct(
    mirror: Mirror,
    data: Samples,
    *,
    steps: int,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Learns rounding, biases and ranges, part by part, with all widths fixed.

    Args:
        mirror: The calibrated mirror, with its widths. Its weights must be those of the float
            model.
        data: The samples.
        steps: Training steps for each part.
        batch_size: Samples in a step.
        seed: Seed of every random choice.
        progress: Is called with the number of parts done, and of all parts.
    """
    parts = mirror.parts()
    uses = Counter(name for part in parts for name in mirror.quantized_in(part))
    shared = {name for name, count in uses.items() if count > 1}
    # The state of the generator does not matter, so that a run that is resumed learns the same.
    freed = FreedMemory()
    with plain_torch(seed), Shelf(mirror.device) as exact, Shelf(mirror.device) as quantized:
        shares: list[float] = []
        for share, values in _first_values(mirror, data, batch_size, seed):
            shares.append(share)
            exact.append(values)
            quantized.append(values)
        for index, part in enumerate(parts):
            _learn_part(mirror, part, shared, exact, quantized, shares, steps, freed)
            if progress is not None:
                progress(index + 1, len(parts))


def _first_values(
    mirror: Mirror, data: Samples, batch_size: int, seed: int
) -> Iterator[tuple[float, Values]]:
    """Yields batches of samples, as they go into the first part.

    Of a batch that several processes share it yields their own rows, and what share these are.
    """
    order = data.shuffled((seed, 0))
    whole = len(order) // batch_size * batch_size or len(order)
    for batch in data.batches(min(batch_size, len(order)), order=order[:whole]):
        own = processes.own_part(batch)
        yield len(own.indices) / len(batch.indices), mirror.entries(tensors(own.inputs))


def _learn_part(
    mirror: Mirror,
    part: Part,
    shared: set[str],
    exact: Shelf,
    quantized: Shelf,
    shares: Sequence[float],
    steps: int,
    freed: FreedMemory,
) -> None:
    """Learns one part, and replaces what goes into it by what comes out, in every batch.

    Args:
        mirror: The mirror.
        part: The part.
        shared: Names of quantizers that several parts have; these do not learn.
        exact: What goes in, as the float model has it.
        quantized: What goes in, as the quantized model has it.
        shares: The share of each batch that this process has.
        steps: Training steps; without any, nothing is learned.
        freed: What is freed, which is limited.
    """
    with torch.no_grad(), mirror.unquantized():
        for index in range(len(exact)):
            exact.replace(index, mirror.run_part(part, exact[index]))
            freed.limit()
    own = {n: q for n, q in mirror.quantized_in(part).items() if n not in shared}
    comparison = _Comparison(mirror, part, quantized, exact, shares)
    if steps:
        search_ranges(own.values(), lambda: comparison.mean(_BATCHES_SEARCHED))
    learners = _Learners(mirror, own, steps)
    if steps and not learners.is_empty:
        _train(comparison, learners, steps, freed)
        learners.keep_codes()
    with torch.no_grad():
        for index in range(len(quantized)):
            quantized.replace(index, mirror.run_part(part, quantized[index]))
            freed.limit()


@dataclass(frozen=True)
class _Comparison:
    """Compares what a part gives with what the float model gives there.

    Attributes:
        mirror: The mirror.
        part: The part.
        quantized: What goes into the part, for each batch.
        exact: What should come out.
        shares: The share of each batch that this process has.
    """

    mirror: Mirror
    part: Part
    quantized: Shelf
    exact: Shelf
    shares: Sequence[float]

    def distance(self, index: int) -> Tensor:
        """The distance for a batch, or what this process adds to it."""
        found = self.mirror.run_part(self.part, self.quantized[index])
        results = self.mirror.results_of(self.part)
        return distance(found, self.exact[index], results, self.shares[index])

    def mean(self, batches: int) -> float:
        """The mean distance for the first batches, without gradients: nothing is dropped then."""
        judged = range(min(batches, len(self.exact)))
        with torch.no_grad():
            return float(torch.stack([self._whole_distance(index) for index in judged]).mean())

    def _whole_distance(self, index: int) -> Tensor:
        own = self.distance(index)
        return processes.total(own) if self.shares[index] < 1 else own


def _train(comparison: _Comparison, learners: _Learners, steps: int, freed: FreedMemory) -> None:
    """Trains a part, and keeps the best state."""
    # Weights swing from code to code to the end, so the last values need not be the best ones.
    best, state = comparison.mean(_BATCHES_JUDGED), learners.state()
    with _dropping(comparison.mirror, comparison.part):
        for step in range(steps):
            index = int(torch.randint(len(comparison.exact), ()))
            loss = comparison.distance(index)
            if not loss.requires_grad:
                break
            learners.clear()
            loss.backward()  # type: ignore[no-untyped-call]
            if comparison.shares[index] < 1:
                processes.sum_gradients(learners.parameters)
            learners.step(1 - step / steps)
            freed.limit()
            if (step + 1) % _STEPS_JUDGED == 0 or step + 1 == steps:
                now = comparison.mean(_BATCHES_JUDGED)
                if now < best:
                    best, state = now, learners.state()
    learners.restore(state)
    learners.clear()


@contextmanager
def _dropping(mirror: Mirror, part: Part) -> Iterator[None]:
    """Makes the activation quantizers of a part drop quantization at random."""
    quantizers = [q for q in mirror.quantized_in(part).values() if q.spec.role is Role.ACTIVATION]
    try:
        for quantizer in quantizers:
            quantizer.drop = _DROP
        yield
    finally:
        for quantizer in quantizers:
            quantizer.drop = 0.0


@dataclass(frozen=True)
class _Rounding:
    """A weight that learns how to be rounded.

    Attributes:
        quantizer: Its quantizer.
        weight: Its values.
        start: Its values before.
        step: The step of its grid, which broadcasts to it.
    """

    quantizer: GatedQuantizer
    weight: nn.Parameter
    start: Tensor
    step: Tensor

    @torch.no_grad()
    def move(self, rate: float) -> None:
        """Moves every element by ``rate`` steps against the sign of its gradient, within reach."""
        if self.weight.grad is None:
            return
        reach = _REACH * self.step
        self.weight.sub_(self.weight.grad.sign_().mul_(self.step * rate))
        self.weight.clamp_(self.start - reach, self.start + reach)


class _Learners:
    """All that learns in a part: weights by sign, biases and ranges by Adam."""

    def __init__(
        self, mirror: Mirror, quantizers: Mapping[str, GatedQuantizer], steps: int
    ) -> None:
        self._sign_rate = min(_LARGEST_SIGN_RATE, 2 * _REACH * _REACHES / max(1, steps))
        self._weights: list[_Rounding] = []
        groups: list[dict[str, Any]] = []
        for name, quantizer in quantizers.items():
            parameter = mirror.value_parameter(name)
            role = quantizer.spec.role
            if parameter is not None:
                parameter.requires_grad_(True)
            if role is Role.WEIGHT and parameter is not None:
                grid, _, _ = quantizer.selected()
                if bool((grid.step > 0).all()):
                    start = parameter.detach().clone()
                    step = of_elements(quantizer.spec, grid.step)
                    self._weights.append(_Rounding(quantizer, parameter, start, step))
            elif role is Role.BIAS and parameter is not None:
                largest = float(parameter.detach().abs().amax()) if parameter.numel() else 0.0
                groups.append({"params": [parameter], "peak": _BIAS_RATE * largest})
            elif role is Role.ACTIVATION:
                groups.append({"params": list(quantizer.parameters()), "peak": _RANGE_RATE})
        self._adam = torch.optim.Adam(groups, lr=0.0) if groups else None

    @property
    def is_empty(self) -> bool:
        return not self._weights and self._adam is None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that learns."""
        ranges = self._adam.param_groups if self._adam is not None else []
        return [r.weight for r in self._weights] + [p for g in ranges for p in g["params"]]

    def state(self) -> list[Tensor]:
        """A copy of all that learns, for :meth:`restore`."""
        return [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def restore(self, state: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, state, strict=True):
            parameter.copy_(value)

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def keep_codes(self) -> None:
        """Puts every weight on its grid, so that small changes of a step leave its codes."""
        for rounding in self._weights:
            rounding.weight.copy_(rounding.quantizer(rounding.weight)[0])

    def step(self, factor: float) -> None:
        """Moves everything, at ``factor`` times the peak rates, which fall to zero.

        Nothing moves if a gradient is not finite.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            return
        for rounding in self._weights:
            rounding.move(self._sign_rate * factor)
        if self._adam is not None:
            for group in self._adam.param_groups:
                group["lr"] = group["peak"] * factor
            self._adam.step()
