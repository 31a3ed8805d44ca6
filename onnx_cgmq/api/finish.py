"""Ends a run: what was learned is written, checked, and compared with the float model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnx_cgmq.api.emitter import Progress
from onnx_cgmq.api.float_agreement import FloatAgreement, float_agreement
from onnx_cgmq.api.opened_model import OpenedModel
from onnx_cgmq.api.result import Result
from onnx_cgmq.api.verification import GOOD_AGREEMENT_DB, Check, verify
from onnx_cgmq.contract.events import EpochDone, Event, Notice, StageStarted
from onnx_cgmq.contract.form import Form
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.data.source import Samples
from onnx_cgmq.errors import AgreementError, ModelError
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.graph.files.load import ModelLike
from onnx_cgmq.inspection import inspect
from onnx_cgmq.inspection.kernel_differences import kernel_differences, slow_kernels
from onnx_cgmq.ort.session import Runnable
from onnx_cgmq.writing.write_back import Written, write

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.learn.run import Learned

_FLIPS: Final = (
    "rounding in sums flips codes of few bits; --target ort-cpu has steps that can't flip"
)
_ROUNDS_IN_BLOCKS: Final = (
    "kernels of packed weights (MatMulNBits) round activations to 8 bits in blocks, which was not "
    "trained; the entry 'session.qdq_matmulnbits_accuracy_level' = '1' of onnxruntime's session "
    "options keeps them float, and is slower"
)


def finish(opened: OpenedModel, learned: Learned, events: list[Event], emit: Progress) -> Result:
    """Writes what was learned as a model, checks it, and measures how good it is.

    Args:
        opened: The model and the samples.
        learned: What was learned.
        events: The events of the run so far, and those to come.
        emit: Is called with notes.

    Raises:
        VerificationError: The written model breaks the bound, or computes something else.
    """
    plan, held_out = learned.plan(), opened.held_out
    written, check = _write_in_agreement(opened, plan, learned, emit)
    emit(StageStarted("inspect"))
    report = inspect(written.model, kernels=opened.for_onnxruntime)
    notes = (*kernel_differences(written.kernels, report), *slow_kernels(report))
    for note in filter(None, (*notes, Runnable.of(written.model).note)):
        emit(Notice(note))
    emit(StageStarted("compare"))
    float_models = (opened.source, opened.float_model)
    return Result(
        written.model,
        plan,
        report,
        check,
        learned.outcome,
        learned.mirror,
        tuple(event.to_record() for event in events if isinstance(event, EpochDone)),
        _agreement_with_float(float_models, written.model, held_out, emit),
        tuple(events),
        config=opened.config,
        held_out=held_out,
        float_bytes=opened.float_bytes,
    )


def _write_in_agreement(
    opened: OpenedModel, plan: BitPlan, learned: Learned, emit: Progress
) -> tuple[Written, Check]:
    """Writes a plan so that onnxruntime computes what the mirror computes, and keeps the bounds.

    Should onnxruntime's optimizations make something else of integer kernels, the plan is written
    for float kernels.

    Raises:
        VerificationError: The model breaks a bound.
        AgreementError: It computes something else either way.
    """
    config = opened.config
    form, target = config.form, config.target

    def write_and_verify(fast: bool) -> tuple[Written, Check]:
        emit(StageStarted("write"))
        written = write(
            opened.gated,
            plan,
            form=form,
            short_names=config.compact,
            integer_kernels=fast,
            weight_kernels=fast and config.weight_kernels,
        )
        emit(StageStarted("verify"))
        bounds, samples = learned.guide.bounds, opened.held_out
        check = verify(
            learned.mirror,
            written.model,
            samples,
            bound=bounds,
            target=target,
            float_model=opened.float_model,
        )
        return written, check

    try:
        written, check = write_and_verify(fast=True)
    except AgreementError as error:
        if form is not Form.ORT:
            raise
        written, check = write_and_verify(fast=False)
        emit(Notice(f"the file is written for float kernels, which are slower: otherwise {error}"))
    if check.agreement_db < GOOD_AGREEMENT_DB:
        packed = any(choice.kernel is Kernel.PACKED for choice in written.kernels.values())
        emit(
            Notice(
                f"the file agrees with what was trained to {check.agreement_db:.1f} dB for most "
                f"samples: {_ROUNDS_IN_BLOCKS if packed else _FLIPS}"
            )
        )
    return written, check


def _agreement_with_float(
    float_models: Iterable[ModelLike], written: ir.Model, held_out: Samples, emit: Progress
) -> FloatAgreement | None:
    """Compares with the float model; what was learned is not lost if onnxruntime can't run that."""
    try:
        return float_agreement(float_models, written, held_out)
    except ModelError as error:
        emit(Notice(f"the agreement with the float model was not measured: {error}"))
        return None
