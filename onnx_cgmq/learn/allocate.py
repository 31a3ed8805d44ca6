"""Allocates widths before any training: gates move under the bound, by losses measured on data."""

from __future__ import annotations

from collections.abc import Callable

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Role
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loss_function import LossFunction
from onnx_cgmq.learn.measured_losses import MeasuredLosses, measure_losses
from onnx_cgmq.learn.schedule import MOVES, Stages
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror

_LEARNED_ROUNDING = 16.0
"""By how much reconstruction lowers the loss that narrow weights cause, while that of narrow
activations stays. Our choice, made on ResNet-20: 12 dB at 4 bits."""


def allocate(
    guide: Guide,
    data: Samples,
    teacher: Teacher,
    loss: LossFunction,
    stages: Stages,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Moves the gates of a calibrated mirror until they keep the bounds; nothing else changes.

    Nothing is measured where 8 bits everywhere keep the bounds, as no tensor needs fewer.

    Args:
        guide: The guide.
        data: The samples.
        teacher: The float model's outputs on these.
        loss: The loss.
        stages: How many samples to use, and whether rounding will be learned.
        progress: Is called with the number of tensors measured, and of all tensors.
    """
    guide.weights_learn = False
    if guide.kept_by_integers:
        return
    measured = measure_losses(
        guide.mirror,
        data,
        teacher,
        loss,
        samples=stages.measured_samples,
        batch_size=stages.batch_size,
        progress=progress,
    )
    if stages.reconstruction_steps:
        measured = _with_learned_rounding(measured, guide.mirror)
    guide.measured = measured
    for _ in range(MOVES):
        guide.step()


def _with_learned_rounding(measured: MeasuredLosses, mirror: Mirror) -> MeasuredLosses:
    """What remains of the losses of weights when their rounding has been learned."""
    found = {}
    for name, losses in measured.items():
        weight = mirror.quantizers[name].spec.role is Role.WEIGHT
        found[name] = {
            width: loss / _LEARNED_ROUNDING if weight and width < INTEGER_KERNEL_BITS else loss
            for width, loss in losses.items()
        }
    return found
