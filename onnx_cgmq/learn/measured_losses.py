"""Measures what each tensor costs: quantized alone, or alone left as it is among all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch

from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn.batches import answers, tensors
from onnx_cgmq.learn.loss_function import LossFunction
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

_NOT_FINITE: Final = 1e9
"""The increase where the loss is NaN or infinite, which is worse than any number. Our choice."""

MeasuredLosses = Mapping[str, Mapping[int, float]]
"""The increase of the loss, by tensor name and width, if that tensor alone is quantized."""

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
    progress: Progress | None = None,
) -> MeasuredLosses:
    """Measures the increase of the loss for tensors whose gates may select several widths.

    Args:
        mirror: A calibrated mirror; its gates stay as they are.
        data: The samples, of which some are used that are evenly spread.
        teacher: The float model's outputs on these samples.
        loss: The loss.
        names: Names of the tensors; those with one width are left out.
        samples: How many samples to use.
        batch_size: Samples in a batch.
        progress: Is called as tensors are done.
    """
    mean_loss = _meter(mirror, data, teacher, loss, samples, batch_size)
    chosen = _with_several_widths(mirror, names)
    found: dict[str, dict[int, float]] = {}
    with _evaluating(mirror), mirror.unquantized():
        float_loss = mean_loss()
        for index, (name, quantizer) in enumerate(chosen.items()):
            found[name] = _measure(quantizer, mean_loss, float_loss)
            if progress is not None:
                progress(index + 1, len(chosen))
    return found


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
    mean_loss = _meter(mirror, data, teacher, loss, samples, batch_size)
    chosen = _with_several_widths(mirror, names)
    found: dict[str, float] = {}
    with _evaluating(mirror):
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
    mirror: Mirror,
    data: Samples,
    teacher: Teacher,
    loss: LossFunction,
    samples: int,
    batch_size: int,
) -> Callable[[], float]:
    """Makes a function that returns the mean loss of the mirror, always on the same samples."""
    order = np.linspace(0, len(data) - 1, min(samples, len(data))).astype(np.int64)
    batches = list(data.batches(min(batch_size, len(order)), order=order))

    @torch.no_grad()
    def mean_loss() -> float:
        total = 0.0
        for batch in batches:
            outputs = mirror.run(tensors(batch.inputs), teacher.names)
            wanted = answers(batch, len(batch.indices))
            total += float(loss(outputs, wanted, teacher.outputs(batch)))
        return total / len(batches)

    return mean_loss


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


def _measure(
    quantizer: GatedQuantizer, mean_loss: Callable[[], float], float_loss: float
) -> dict[int, float]:
    """Measures the increases for one tensor, in a mirror that is otherwise not quantized."""
    gate, increases = quantizer.gate.clone(), {}
    quantizer.bypassed = False
    try:
        for width in quantizer.spec.ladder.quantized:
            widths = np.full(quantizer.spec.gate_shape, width)
            quantizer.set_gate(quantizer.gate_for(widths))
            increases[width] = max(0.0, _finite(mean_loss() - float_loss))
    finally:
        quantizer.set_gate(gate)
        quantizer.bypassed = True
    return increases


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else _NOT_FINITE
