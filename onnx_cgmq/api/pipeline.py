"""quantize(): all steps of the job, to be read from top to bottom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from typing_extensions import Unpack

from onnx_cgmq.api.float_agreement import FloatAgreement, float_agreement
from onnx_cgmq.api.opened_model import OpenedModel, chosen_config, open_model
from onnx_cgmq.api.output import OutputFiles
from onnx_cgmq.api.result import Result
from onnx_cgmq.api.verification import GOOD_AGREEMENT_DB, Check, verify
from onnx_cgmq.contract.events import (
    EpochDone,
    Event,
    Finished,
    MetricsLog,
    Notice,
    StageProgress,
    StepDone,
)
from onnx_cgmq.contract.form import Form
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.data.source import Samples
from onnx_cgmq.errors import AgreementError, ModelError
from onnx_cgmq.graph.files.load import ModelLike
from onnx_cgmq.inspection import inspect
from onnx_cgmq.inspection.kernel_differences import kernel_differences, slow_kernels
from onnx_cgmq.ort.session import Runnable
from onnx_cgmq.settings.config import Config, Settings
from onnx_cgmq.writing.write_back import Written, write

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.cost.bound import Bounds
    from onnx_cgmq.learn.run import Learned

Progress = Callable[[Event], None]


def quantize(
    model: ModelLike,
    data: Any,
    bound: Bounds,
    *,
    output: str | os.PathLike[str] | None = None,
    validation: Any = None,
    config: Config | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    log: str | os.PathLike[str] | None = None,
    **settings: Unpack[Settings],
) -> Result:
    """Learns widths, ranges and weights under a bound, and writes them into an ONNX model.

    Args:
        model: A float ONNX model: path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        data: Training samples; labels are optional (README, "Data").
        bound: ``"0.4%"`` of the float model's bit operations, ``"12.5MBOP"``, a size
            (``"200KB"``), peak bytes of activations (``"activations:64KB"``), a cost by the
            target's table (``"cost:25%"``); or several of these, which are all kept.
        output: The file to write; plan and checkpoint are in the same folder. ``None`` writes
            nothing.
        validation: Held-out samples by which the best state is chosen; by default a share of
            ``data``.
        config: The settings of the run, instead of ``settings``.
        resume: Go on from the checkpoint of a run that was killed or interrupted.
        progress: Is called with an :class:`~onnx_cgmq.contract.events.Event` at every training
            step and epoch.
        log: A file that gets a JSON line for each event; for training steps at most one a second.
        **settings: Fields of :class:`~onnx_cgmq.settings.config.Config`.

    Returns:
        The result. After Ctrl-C or at the time limit ``result.complete`` is ``False``, and the
        result has the best model so far that keeps the bound.

    Raises:
        ModelError: The model can't be read or has nothing to quantize.
        UnsupportedOperatorError: The mirror lacks operators of the model.
        DataError: The data can't be read or does not fit the model.
        BoundError: The bound can't be parsed or can't be kept.
        ConfigError: A setting is invalid.
        OutputError: The output can't be written.
        VerificationError: The written model breaks the bound; no file is left behind then.
    """
    config = chosen_config(config, settings)
    files = OutputFiles.of_run(output, log)
    opened = open_model(model, data, bound, validation=validation, config=config, files=files)
    events: list[Event] = []
    emit = emitter(progress, None if log is None else MetricsLog(log, append=resume), events)
    for note in opened.notes:
        emit(Notice(note))

    from onnx_cgmq.learn.opened_run import Data, OpenedRun  # loads torch
    from onnx_cgmq.learn.run import learn
    from onnx_cgmq.mirror.torch_state import plain_torch

    with plain_torch(opened.config.seed):
        samples = Data(opened.train, opened.held_out)
        run = OpenedRun.open(opened.float_model, opened.gated, samples, opened.config, emit)
        learned = learn(run, bound, emit, checkpoint=files.checkpoint, resume=resume)
        result = finish(opened, learned, events, emit)
    if output is not None:
        result.save(output)
        if result.complete and learned.checkpoint is not None:
            learned.checkpoint.remove()
    emit(Finished(complete=result.complete, reason=result.outcome.reason))
    return result


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
    report = inspect(written.model, kernels=opened.for_onnxruntime)
    notes = (*kernel_differences(written.kernels, report), *slow_kernels(report))
    for note in filter(None, (*notes, Runnable.of(written.model).note)):
        emit(Notice(note))
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
    form, target = opened.config.form, opened.config.target

    def write_and_verify(integer_kernels: bool) -> tuple[Written, Check]:
        written = write(opened.gated, plan, form=form, integer_kernels=integer_kernels)
        bounds, samples = learned.guide.bounds, opened.held_out
        check = verify(learned.mirror, written.model, samples, bound=bounds, target=target)
        return written, check

    try:
        written, check = write_and_verify(integer_kernels=True)
    except AgreementError as error:
        if form is not Form.ORT:
            raise
        written, check = write_and_verify(integer_kernels=False)
        emit(Notice(f"the file is written for float kernels, which are slower: otherwise {error}"))
    if check.agreement_db < GOOD_AGREEMENT_DB:
        emit(
            Notice(
                f"the file agrees with what was trained to {check.agreement_db:.1f} dB for most "
                "samples: rounding in sums flips codes of few bits; --target ort-cpu has steps "
                "that can't flip"
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


def emitter(
    progress: Progress | None,
    log: MetricsLog | None,
    kept: list[Event],
) -> Progress:
    """Makes a function that sends events to the caller and the log, and keeps most kinds."""

    def emit(event: Event) -> None:
        if not isinstance(event, (StageProgress, StepDone)):
            kept.append(event)
        if log is not None:
            log(event)
        if progress is not None:
            progress(event)

    return emit
