"""Measures what each tensor costs at each width: one tensor is quantized at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
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


@torch.no_grad()
def measure_losses(
    mirror: Mirror,
    data: Samples,
    teacher: Teacher,
    loss: LossFunction,
    *,
    names: Collection[str],
    samples: int,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
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
        progress: Is called with the number of tensors done, and of all tensors.
    """
    was_training = mirror.training
    mirror.eval()
    order = np.linspace(0, len(data) - 1, min(samples, len(data))).astype(np.int64)
    batches = list(data.batches(min(batch_size, len(order)), order=order))

    def mean_loss() -> float:
        total = 0.0
        for batch in batches:
            outputs = mirror.run(tensors(batch.inputs), teacher.names)
            wanted = answers(batch, len(batch.indices))
            total += float(loss(outputs, wanted, teacher.outputs(batch)))
        return total / len(batches)

    chosen = {
        name: quantizer
        for name, quantizer in mirror.quantizers.items()
        if name in names and len(quantizer.spec.ladder.nonzero) > 1
    }
    found: dict[str, dict[int, float]] = {}
    try:
        with mirror.unquantized():
            float_loss = mean_loss()
            for index, (name, quantizer) in enumerate(chosen.items()):
                found[name] = _measure(quantizer, mean_loss, float_loss)
                if progress is not None:
                    progress(index + 1, len(chosen))
    finally:
        mirror.train(was_training)
    return found


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
            increase = mean_loss() - float_loss
            increases[width] = max(0.0, increase) if math.isfinite(increase) else _NOT_FINITE
    finally:
        quantizer.set_gate(gate)
        quantizer.bypassed = True
    return increases
