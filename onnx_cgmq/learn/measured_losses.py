"""Measures what each tensor costs: quantized alone, or alone left as it is among all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from onnx_cgmq.data.samples import Batch, Indices, Samples
from onnx_cgmq.learn import processes
from onnx_cgmq.learn.batches import answers, tensors
from onnx_cgmq.learn.loss_function import LossFunction
from onnx_cgmq.learn.shelf import Shelf
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.core.parts import Part
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

_NOT_FINITE: Final = 1e9
"""The increase where the loss is NaN or infinite, which is worse than any number. Our choice."""

MeasuredLosses = Mapping[str, Mapping[int, float]]
"""The increase of the loss, by tensor name and width, if that tensor alone is quantized."""

BatchLosses = dict[int, dict[str, dict[int, float]]]
"""The loss itself, by batch, tensor name and width: what was measured so far."""

Progress = Callable[[int, int], None]
"""Is called with the number of tensors done, and of all tensors."""


def measure_losses(
    mirror: Mirror,
    data: Samples,
    teacher: Teacher,
    loss: LossFunction,
    *,
    names: Collection[str],
    samples: int,
    batch_size: int,
    known: BatchLosses | None = None,
    progress: Progress | None = None,
) -> MeasuredLosses:
    """Measures the increase of the loss for tensors whose gates may select several widths.

    What comes before a tensor is the same for all its widths, and runs once.

    Args:
        mirror: A calibrated mirror; its gates stay as they are.
        data: The samples, of which some are used that are evenly spread.
        teacher: The float model's outputs on these samples.
        loss: The loss.
        names: Names of the tensors; those with one width are left out.
        samples: How many samples to use.
        batch_size: Samples in a batch.
        known: What an earlier call measured before it was stopped; what this one measures is added.
        progress: Is called as tensors are done, each once for every batch.
    """
    chosen = _with_several_widths(mirror, names)
    batches = _evenly_spread(data, samples, batch_size)
    known = {} if known is None else known
    parts = mirror.parts(teacher.names)
    starting = _where_they_start(mirror, parts, chosen)
    total, others, done = len(chosen) * batches.count, processes.count(), 0

    def measured(item: tuple[int, Batch]) -> tuple[float, dict[str, dict[int, float]]]:
        """The loss in floats, and with each tensor at each width."""
        nonlocal done
        number, batch = item
        judge, found = _judge(mirror, teacher, loss, batch), known.setdefault(number, {})
        values = mirror.entries(tensors(batch.inputs))
        in_floats = judge(parts, values)
        for index, part in enumerate(parts):
            for name in starting[index]:
                done += 1
                if name in found:
                    continue
                loss_here = partial(judge, parts[index:], values)
                found[name] = _at_each_width(chosen[name], loss_here)
                if progress is not None:
                    progress(min(done * others, total), total)
            values = mirror.run_part(part, values)
        return in_floats, found

    with torch.no_grad(), _evaluating(mirror), mirror.unquantized():
        results = processes.in_turns(enumerate(batches), measured)
    float_sum = sum(in_floats for in_floats, _ in results)

    def increase(name: str, width: int) -> float:
        whole = sum(found[name][width] for _, found in results)
        return max(0.0, _finite((whole - float_sum) / batches.count))

    return {
        name: {width: increase(name, width) for width in quantizer.spec.ladder.quantized}
        for name, quantizer in chosen.items()
    }


def _where_they_start(
    mirror: Mirror, parts: Sequence[Part], names: Collection[str]
) -> list[list[str]]:
    """For each part, the names of the tensors that are quantized there and in none before."""
    found: list[list[str]] = []
    known: set[str] = set()
    for part in parts:
        new = [name for name in mirror.quantized_in(part) if name in names and name not in known]
        found.append(new)
        known.update(new)
    return found


def _judge(
    mirror: Mirror, teacher: Teacher, loss: LossFunction, batch: Batch
) -> Callable[[Sequence[Part], Mapping[int, Any]], float]:
    """Makes a function that returns the loss at the end of the last parts, for a batch."""
    wanted = answers(batch, len(batch.indices), mirror.device)
    taught = teacher.outputs(batch)

    def judge(parts: Sequence[Part], values: Mapping[int, Any]) -> float:
        for part in parts:
            values = mirror.run_part(part, values)
        return float(loss(mirror.named(values, teacher.names), wanted, taught))

    return judge


def measure_reliefs(
    mirror: Mirror,
    data: Samples,
    teacher: Teacher,
    loss: LossFunction,
    *,
    names: Collection[str],
    samples: int,
    batch_size: int,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Measures by how much the loss falls if one tensor alone stays float.

    All others are quantized, with the widths that their gates select. The fall is negative where
    the errors of two tensors happen to make up for each other.

    Args:
        mirror: A calibrated mirror, with its widths.
        data: As for :func:`measure_losses`, like all other arguments.
        teacher: The float model's outputs.
        loss: The loss.
        names: Names of the tensors; those with one width are left out.
        samples: How many samples to use.
        batch_size: Samples in a batch.
        progress: Is called as tensors are done.
    """
    chosen = _with_several_widths(mirror, names)
    batches = _evenly_spread(data, samples, batch_size)
    found: dict[str, float] = {}
    with _evaluating(mirror), Shelf(mirror.device) as entries:
        mean_loss = _meter(mirror, teacher, loss, batches, entries)
        whole = _finite(mean_loss())
        for index, (name, quantizer) in enumerate(chosen.items()):
            quantizer.bypassed = True
            try:
                found[name] = whole - _finite(mean_loss())
            finally:
                quantizer.bypassed = False
            if progress is not None:
                progress(index + 1, len(chosen))
    return found


def _meter(
    mirror: Mirror, teacher: Teacher, loss: LossFunction, batches: Iterable[Batch], entries: Shelf
) -> Callable[[], float]:
    """Makes a function that returns the mean loss of the mirror, always on the same samples."""
    parts, judges = mirror.parts(teacher.names), []
    for batch in batches:
        judges.append(_judge(mirror, teacher, loss, batch))
        entries.append(mirror.entries(tensors(batch.inputs)))

    @torch.no_grad()
    def mean_loss() -> float:
        losses = [judge(parts, entries[index]) for index, judge in enumerate(judges)]
        return sum(losses) / len(losses)

    return mean_loss


@dataclass(frozen=True)
class _Spread:
    """Batches of some samples that are evenly spread, read as they are needed."""

    data: Samples
    order: Indices
    batch_size: int

    @property
    def count(self) -> int:
        return self.data.subset(self.order).batch_count(self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.data.batches(self.batch_size, order=self.order)


def _evenly_spread(data: Samples, samples: int, batch_size: int) -> _Spread:
    order = np.linspace(0, len(data) - 1, min(samples, len(data))).astype(np.int64)
    return _Spread(data, order, min(batch_size, len(order)))


def _with_several_widths(mirror: Mirror, names: Collection[str]) -> dict[str, GatedQuantizer]:
    return {
        name: quantizer
        for name, quantizer in mirror.quantizers.items()
        if name in names and len(quantizer.spec.ladder.nonzero) > 1
    }


@contextmanager
def _evaluating(mirror: Mirror) -> Iterator[None]:
    was_training = mirror.training
    mirror.eval()
    try:
        yield
    finally:
        mirror.train(was_training)


def _at_each_width(quantizer: GatedQuantizer, loss: Callable[[], float]) -> dict[int, float]:
    """The loss at each width of one tensor, in a mirror that is otherwise not quantized."""
    gate, found = quantizer.gate.clone(), {}
    quantizer.bypassed = False
    try:
        for width in quantizer.spec.ladder.quantized:
            widths = np.full(quantizer.spec.gate_shape, width)
            quantizer.set_gate(quantizer.gate_for(widths))
            found[width] = loss()
    finally:
        quantizer.set_gate(gate)
        quantizer.bypassed = True
    return found


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else _NOT_FINITE
