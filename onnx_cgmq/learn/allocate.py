"""Allocates widths before any training: gates move under the bound, by losses measured on data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Role
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loss_function import LossFunction
from onnx_cgmq.learn.measured_losses import BatchLosses, MeasuredLosses, measure_losses
from onnx_cgmq.learn.schedule import MOVES, Stages
from onnx_cgmq.learn.snapshot import snapshot
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror

_LEARNED_ROUNDING: Final = 8.0
"""By how much reconstruction lowers the loss that narrow weights cause, while that of narrow
activations stays. Our choice, made on ResNet-20 and EfficientNet-lite0: 9 dB at 4 bits."""

_NARROWEST_LEARNED: Final = 3
"""With fewer bits a weight is a sign and a zero, and rounding wins next to nothing."""


def allocate(
    guide: Guide,
    data: Samples,
    teacher: Teacher,
    loss: LossFunction,
    stages: Stages,
    integer_kernels: bool = True,
    known: BatchLosses | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Moves the gates of a calibrated mirror, and settles them within the bounds.

    Nothing is measured where no gate has to narrow and none may widen, nor for tensors whose losses
    the guide has. Weights keep their values. What stops this leaves gates and ranges as they were.

    Args:
        guide: The guide.
        data: The samples.
        teacher: The float model's outputs on these.
        loss: The loss.
        stages: How many samples to use, and whether rounding will be learned.
        integer_kernels: As for :meth:`~onnx_cgmq.learn.guide.Guide.settle`.
        known: What was measured before a stop, as for
            :func:`~onnx_cgmq.learn.measured_losses.measure_losses`.
        progress: Is called with the number of tensors measured, and of all tensors.
    """
    mirror, guided = snapshot(guide.mirror), guide.state_dict()
    try:
        if guide.needs_losses(integer_kernels):
            measured = _measure(guide, data, teacher, loss, stages, known, progress)
            guide.measured = {**guide.measured, **measured}
            for _ in range(MOVES):
                guide.step()
        guide.settle(integer_kernels)
    except BaseException:  # Ctrl-C above all
        guide.mirror.load_state_dict(mirror)
        guide.load_state_dict(guided)
        raise


def _measure(
    guide: Guide,
    data: Samples,
    teacher: Teacher,
    loss: LossFunction,
    stages: Stages,
    known: BatchLosses | None,
    progress: Callable[[int, int], None] | None,
) -> MeasuredLosses:
    measured = measure_losses(
        guide.mirror,
        data,
        teacher,
        loss,
        names=guide.counted - guide.measured.keys(),
        samples=stages.measured_samples,
        batch_size=stages.batch_size,
        known=known,
        progress=progress,
    )
    if stages.reconstruction_steps:
        return _with_learned_rounding(measured, guide.mirror)
    return measured


def _with_learned_rounding(measured: MeasuredLosses, mirror: Mirror) -> MeasuredLosses:
    """What remains of the losses of weights when their rounding has been learned."""
    found, learned = {}, range(_NARROWEST_LEARNED, INTEGER_KERNEL_BITS)
    for name, losses in measured.items():
        weight = mirror.quantizers[name].spec.role is Role.WEIGHT
        found[name] = {
            width: loss / _LEARNED_ROUNDING if weight and width in learned else loss
            for width, loss in losses.items()
        }
    return found
