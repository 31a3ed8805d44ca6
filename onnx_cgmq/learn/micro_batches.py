"""Computes a batch in micro-batches where it does not fit into memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from onnx_cgmq.data.samples import Batch
from onnx_cgmq.learn.batches import answers, joined, tensors
from onnx_cgmq.learn.loss_function import LossFunction, backward
from onnx_cgmq.learn.statistics import RunningStatistics
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror


def add_gradients(
    mirror: Mirror, batch: Batch, teacher: Teacher, loss: LossFunction, size: int | None
) -> float:
    """Adds the gradients of the loss on a batch to those of the mirror's parameters.

    In micro-batches the mirror runs twice: for its outputs, of which the loss on the whole batch is
    computed, and for the gradients. So any loss is the same in micro-batches, also one that is no
    mean over samples.

    Args:
        mirror: The mirror.
        batch: The batch.
        teacher: The float model's outputs on its samples.
        loss: The loss.
        size: The most samples in a micro-batch; ``None`` for any number.

    Returns:
        The loss.
    """
    micro_batches = batch.split(size)
    whole = len(micro_batches) == 1

    def run(part: Batch) -> dict[str, Tensor]:
        return mirror.run(tensors(part.inputs), teacher.names)

    with torch.set_grad_enabled(whole):
        outputs = joined(run, micro_batches)
    if not whole:
        outputs = {n: v.requires_grad_(v.is_floating_point()) for n, v in outputs.items()}
    _expect(mirror, len(micro_batches))
    value = loss(outputs, answers(batch, len(batch.indices), mirror.device), teacher.outputs(batch))
    backward(value, loss)
    if not whole:
        wanted = {n: v.grad for n, v in outputs.items() if v.grad is not None}
        _backward_in_parts(run, micro_batches, wanted)
    return float(value.detach())


def _backward_in_parts(
    run: Callable[[Batch], dict[str, Tensor]], parts: Sequence[Batch], gradients: dict[str, Tensor]
) -> None:
    """Takes the gradients for the outputs of all micro-batches through each of them."""
    start = dict.fromkeys(gradients, 0)
    for part in parts:
        values, given = [], []
        for name, value in run(part).items():
            if name in gradients:
                rows = slice(start[name], start[name] + len(value))
                start[name] += len(value)
                if value.requires_grad:
                    values.append(value)
                    given.append(gradients[name][rows])
        torch.autograd.backward(values, given)


def _expect(mirror: Mirror, count: int) -> None:
    """Makes statistics take so many micro-batches for one batch."""
    for quantizer in mirror.quantizers.values():
        if isinstance(quantizer.observer, RunningStatistics):
            quantizer.observer.expect(count)
