"""Measures how sensitive the loss is to each tensor: quantized alone, and among all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import Event, StageProgress
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.learn.malloc import freed_memory_kept
from onnx_cgmq.learn.measured_losses import measure_losses, measure_reliefs
from onnx_cgmq.learn.opened_run import OpenedRun


@dataclass(frozen=True)
class TensorLosses:
    """How the loss depends on one tensor.

    Attributes:
        alone: The increase of the loss by width, if this tensor alone is quantized.
        among: By how much the loss falls if this tensor alone stays float, and all others have
            given widths.
    """

    alone: Mapping[int, float]
    among: float


@freed_memory_kept()
def tensor_losses(
    run: OpenedRun, widths: Widths, samples: int, batch_size: int, emit: Callable[[Event], None]
) -> dict[str, TensorLosses]:
    """Measures all weights and activations whose gates may select several widths.

    Args:
        run: The run.
        widths: The widths that all others have, by tensor name. A tensor without an entry stays
            float.
        samples: How many training samples to use.
        batch_size: Samples in a batch.
        emit: Is called with the progress.

    Returns:
        The losses by tensor name, in graph order.
    """
    judgement, quantizers = run.judgement, run.mirror.quantizers
    names = [name for name, q in quantizers.items() if q.spec.role is not Role.BIAS]

    def shown(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: emit(StageProgress(stage, done, total))

    alone = measure_losses(
        run.mirror,
        run.data.train,
        judgement.teacher,
        judgement.loss,
        names=names,
        samples=samples,
        batch_size=batch_size,
        progress=shown("alone"),
    )
    for name, quantizer in quantizers.items():
        quantizer.bypassed = name not in widths
        if name in widths:
            quantizer.set_gate(quantizer.gate_for(widths[name]))
    among = measure_reliefs(
        run.mirror,
        run.data.train,
        judgement.teacher,
        judgement.loss,
        names=[name for name in names if name in widths],
        samples=samples,
        batch_size=batch_size,
        progress=shown("among"),
    )
    return {name: TensorLosses(alone[name], among[name]) for name in alone if name in among}
