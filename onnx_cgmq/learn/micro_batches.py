"""Computes a batch in micro-batches where it does not fit into memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from onnx_cgmq.data.samples import Batch
from onnx_cgmq.learn import processes
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
    mean over samples. Several processes compute some samples each, of which the same holds.

    Args:
        mirror: The mirror.
        batch: The batch.
        teacher: The float model's outputs on its samples.
        loss: The loss.
        size: The most samples in a micro-batch; ``None`` for any number.

    Returns:
        The loss.
    """
    rows = len(batch.indices)
    is_split, own = processes.is_split(rows), processes.own_rows(rows)
    micro_batches = processes.own_part(batch).split(size)
    at_once = len(micro_batches) == 1

    def run(part: Batch) -> dict[str, Tensor]:
        return mirror.run(tensors(part.inputs), teacher.names)

    with torch.set_grad_enabled(at_once):
        made = joined(run, micro_batches)
    outputs = made
    if is_split or not at_once:
        whole = processes.gathered(made, rows)
        outputs = {n: v.requires_grad_(v.is_floating_point()) for n, v in whole.items()}
    _expect(mirror, len(micro_batches), is_split)
    value = loss(outputs, answers(batch, rows, mirror.device), teacher.outputs(batch))
    backward(value, loss)
    if outputs is not made:
        given = {n: v.grad[own] for n, v in outputs.items() if v.grad is not None}
        if at_once:
            _backward(made, given)
        else:
            _backward_in_parts(run, micro_batches, given)
    if is_split:
        processes.sum_gradients(mirror.parameters())
    return float(value.detach())


def _backward(values: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
    """Takes gradients for values through what made them, as far as they have a gradient."""
    chosen = [name for name in gradients if values[name].requires_grad]
    torch.autograd.backward([values[n] for n in chosen], [gradients[n] for n in chosen])


def _backward_in_parts(
    run: Callable[[Batch], dict[str, Tensor]], parts: Sequence[Batch], gradients: dict[str, Tensor]
) -> None:
    """Takes the gradients for the outputs of all micro-batches through each of them."""
    start = dict.fromkeys(gradients, 0)
    for part in parts:
        values, given = run(part), {}
        for name in gradients:
            rows = slice(start[name], start[name] + len(values[name]))
            start[name], given[name] = rows.stop, gradients[name][rows]
        _backward(values, given)


def _expect(mirror: Mirror, count: int, is_split: bool) -> None:
    """Makes statistics take so many micro-batches for one batch, which processes may share."""
    for quantizer in mirror.quantizers.values():
        if isinstance(quantizer.observer, RunningStatistics):
            quantizer.observer.expect(count, is_split)
