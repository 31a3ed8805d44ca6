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
from torch import Tensor

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn import processes
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.distance import distance
from onnx_cgmq.learn.malloc import FreedMemory
from onnx_cgmq.learn.part_learners import PartLearners
from onnx_cgmq.learn.range_search import search_ranges
from onnx_cgmq.learn.shelf import Shelf, Values
from onnx_cgmq.mirror.core.parts import Part
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.torch_state import plain_torch

_DROP: Final = 0.5
"""How often the quantization of an activation is dropped. QDrop's share; we drop it for the whole
tensor and not for single elements, which costs no time."""

_STEPS_JUDGED: Final = 20
"""After so many steps each, a part is judged without gradients, and the best state is kept. Our
choice, as that of the batches: it costs a tenth of the time."""

_BATCHES_JUDGED: Final = 8

_BATCHES_SEARCHED: Final = 2
"""Batches on which the ranges of a part are searched. Our choice."""


@dataclass(frozen=True)
class Begun:
    """Where an earlier call was stopped.

    Attributes:
        parts: Number of parts that had learned.
        generator: State of torch's random number generator, when ``progress`` was called for them.
        state: The mirror's state then.
    """

    parts: int
    generator: Tensor
    state: Mapping[str, Any]


def reconstruct(
    mirror: Mirror,
    data: Samples,
    *,
    steps: int,
    batch_size: int = 32,
    seed: int = 0,
    begun: Begun | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Learns rounding, biases and ranges, part by part, with all widths fixed.

    Args:
        mirror: The calibrated mirror, with its widths. Its weights must be those of the float
            model. What stops this in the middle of a part leaves that part as it was.
        data: The samples.
        steps: Training steps for each part.
        batch_size: Samples in a step.
        seed: Seed of every random choice.
        begun: Where an earlier call was stopped, to go on from there.
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
        if begun is not None:
            for part in parts[: begun.parts]:
                _advance_exactly(mirror, part, exact, freed)
            mirror.load_state_dict(begun.state)
            for part in parts[: begun.parts]:
                _advance(mirror, part, quantized, freed)
            torch.set_rng_state(begun.generator)
        for index in range(0 if begun is None else begun.parts, len(parts)):
            _learn_part(mirror, parts[index], shared, exact, quantized, shares, steps, freed)
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
    _advance_exactly(mirror, part, exact, freed)
    if steps:
        own = {n: q for n, q in mirror.quantized_in(part).items() if n not in shared}
        comparison = _Comparison(mirror, part, quantized, exact, shares)
        with _as_it_was_if_stopped(mirror, own):
            search_ranges(own.values(), lambda: comparison.mean(_BATCHES_SEARCHED))
            learners = PartLearners(mirror, own, steps)
            if not learners.is_empty:
                _train(comparison, learners, steps, freed)
                learners.keep_codes()
    _advance(mirror, part, quantized, freed)


@torch.no_grad()
def _advance(mirror: Mirror, part: Part, shelf: Shelf, freed: FreedMemory) -> None:
    """Replaces what goes into a part by what comes out, in every batch."""
    for index in range(len(shelf)):
        shelf.replace(index, mirror.run_part(part, shelf[index]))
        freed.limit()


def _advance_exactly(mirror: Mirror, part: Part, shelf: Shelf, freed: FreedMemory) -> None:
    """The same as the float model computes it, if the part has not learned yet."""
    with mirror.unquantized():
        _advance(mirror, part, shelf, freed)


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


def _train(comparison: _Comparison, learners: PartLearners, steps: int, freed: FreedMemory) -> None:
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
def _as_it_was_if_stopped(mirror: Mirror, own: Mapping[str, GatedQuantizer]) -> Iterator[None]:
    """Restores what a part learned, if it is stopped: what is half learned is no state to keep."""
    found = (mirror.value_parameter(name) for name in own)
    values = [(value, value.detach().clone()) for value in found if value is not None]
    states = {
        name: {key: tensor.clone() for key, tensor in quantizer.state_dict().items()}
        for name, quantizer in own.items()
    }
    try:
        yield
    except BaseException:  # Ctrl-C above all
        with torch.no_grad():
            for value, before in values:
                value.copy_(before)
        for name, quantizer in own.items():
            quantizer.load_state_dict(states[name])
        raise


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
