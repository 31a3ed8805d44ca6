"""quantize(): all steps of the job, to be read from top to bottom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx_ir as ir
from typing_extensions import Unpack

from onnx_cgmq.api.costly import leave_out_costly
from onnx_cgmq.api.float_agreement import FloatAgreement, float_agreement
from onnx_cgmq.api.input_notes import input_notes
from onnx_cgmq.api.output import OutputFiles, data_files
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
from onnx_cgmq.cost.float_partners import float_partner_notes
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.cost.notes import cost_notes
from onnx_cgmq.data.source import Samples, open_data
from onnx_cgmq.errors import AgreementError, ConfigError, ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.gating.uneven_weights import uneven_weights
from onnx_cgmq.graph.files.load import ModelLike, external_files, load_model
from onnx_cgmq.graph.input_shapes import open_inputs
from onnx_cgmq.inspection import inspect
from onnx_cgmq.inspection.kernel_differences import kernel_differences, slow_kernels
from onnx_cgmq.ort.lookups import check_lookups
from onnx_cgmq.ort.session import Runnable
from onnx_cgmq.preparation.equalize import equalize_in_place
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.preparation.unknown_ranks import find_ranks
from onnx_cgmq.settings import load_target
from onnx_cgmq.settings.config import Config, Settings
from onnx_cgmq.writing.write_back import Written, write

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.cost.bound import Bounds
    from onnx_cgmq.learn.run import Learned

Progress = Callable[[Event], None]

_FLIPS: Final = (
    "rounding in sums flips codes of few bits; --target ort-cpu has steps that can't flip"
)
_ROUNDS_IN_BLOCKS: Final = (
    "kernels of packed weights (MatMulNBits) round activations to 8 bits in blocks, which was not "
    "trained; the entry 'session.qdq_matmulnbits_accuracy_level' = '1' of onnxruntime's session "
    "options keeps them float, and is slower"
)


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
    _check_one_process()
    if config is not None and settings:
        raise ConfigError(f"give config or settings, not both; settings: {', '.join(settings)}")
    config = config or Config.create(**settings)
    files = OutputFiles.of_run(output, log)
    loaded = load_model(model)
    files.check(_sources(model, loaded, data, validation))
    float_model = prepare(loaded, runtime=config.runtime)
    files.check_space(_weight_bytes(float_model))
    samples = open_data(data, float_model)
    check_lookups(float_model, samples)
    config = _with_shapes_of_data(samples, float_model, config)
    find_ranks(float_model, (batch.inputs for batch in islice(samples.batches(1), 2)))
    train, held_out = _split(samples, validation, float_model, config)
    if config.moves_factors:
        equalize_in_place(float_model, train)
    gated = insert_gates(float_model, config)
    gated, config, left_out = leave_out_costly(float_model, gated, config, bound, train)
    events: list[Event] = []
    emit = _emitter(progress, None if log is None else MetricsLog(log, append=resume), events)
    for_onnxruntime = config.form is Form.ORT
    costs = CostModel.of(gated, load_target(config.target).cost)
    for note in (
        *dict.fromkeys((*samples.notes, *held_out.notes)),
        *cost_notes(gated, kernels=for_onnxruntime and config.integer_kernels),
        *float_partner_notes(costs, bound),
        *uneven_weights(gated),
        *input_notes(float_model, samples),
        *filter(None, [left_out]),
    ):
        emit(Notice(note))

    from onnx_cgmq.learn.run import Data, learn  # loads torch
    from onnx_cgmq.mirror.torch_state import plain_torch

    with plain_torch(config.seed):
        learned = learn(
            float_model,
            gated,
            bound,
            Data(train, held_out),
            config,
            emit,
            checkpoint=files.checkpoint,
            resume=resume,
        )
        plan = learned.plan()
        written, check = _write_in_agreement(gated, plan, learned, held_out, config, emit)
    report = inspect(written.model, kernels=for_onnxruntime)
    notes = (*kernel_differences(written.kernels, report), *slow_kernels(report))
    for note in filter(None, (*notes, Runnable.of(written.model).note)):
        emit(Notice(note))
    outcome = learned.outcome
    result = Result(
        written.model,
        plan,
        report,
        check,
        outcome,
        learned.mirror,
        tuple(event.to_record() for event in events if isinstance(event, EpochDone)),
        _agreement_with_float((model, float_model), written.model, held_out, emit),
        tuple(events),
        config=config,
        held_out=held_out,
    )
    if output is not None:
        result.save(output)
        if outcome.complete and learned.checkpoint is not None:
            learned.checkpoint.remove()
    emit(Finished(complete=outcome.complete, reason=outcome.reason))
    return result


def _check_one_process() -> None:
    """Refuses to run as one of several processes that would all write the same files.

    Raises:
        ConfigError: The environment says that this is one of several.
    """
    rank, count = os.environ.get("RANK"), os.environ.get("WORLD_SIZE", "")
    if rank is not None and count.isdecimal() and int(count) > 1:
        raise ConfigError(
            f"this is process {rank} of {count} (RANK and WORLD_SIZE, as torchrun sets them), but "
            "a run in several processes is not supported yet; start one process without torchrun, "
            "or unset these variables"
        )


def _write_in_agreement(
    gated: ir.Model,
    plan: BitPlan,
    learned: Learned,
    held_out: Samples,
    config: Config,
    emit: Progress,
) -> tuple[Written, Check]:
    """Writes a plan so that onnxruntime computes what the mirror computes, and keeps the bounds.

    Should onnxruntime's optimizations make something else of integer kernels, the plan is written
    for float kernels.

    Raises:
        VerificationError: The model breaks a bound.
        AgreementError: It computes something else either way.
    """

    def write_and_verify(fast: bool) -> tuple[Written, Check]:
        written = write(
            gated,
            plan,
            form=config.form,
            integer_kernels=fast,
            weight_kernels=fast and config.weight_kernels,
        )
        bounds = learned.guide.bounds
        check = verify(learned.mirror, written.model, held_out, bound=bounds, target=config.target)
        return written, check

    try:
        written, check = write_and_verify(fast=True)
    except AgreementError as error:
        if config.form is not Form.ORT:
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


def _split(
    samples: Samples, validation: Any, model: ir.Model, config: Config
) -> tuple[Samples, Samples]:
    """Returns training samples and held-out samples."""
    if validation is None:
        return samples.split(config.validation_share, config.seed)
    held_out = open_data(validation, model)
    check_lookups(model, held_out)
    return samples, held_out


def _with_shapes_of_data(samples: Samples, model: ir.Model, config: Config) -> Config:
    """Adds shapes of the first sample to the settings, for inputs whose shape is not given.

    Cost is then counted with these shapes.
    """
    missing = [name for name in open_inputs(model) if name not in config.shapes]
    if not missing:
        return config
    first = next(samples.batches(1)).inputs
    shapes = {name: tuple(first[name].shape) for name in missing}
    return config.model_copy(update={"shapes": {**shapes, **config.shapes}})


def _sources(
    model: ModelLike, loaded: ir.Model, data: Any, validation: Any
) -> dict[str, Iterable[Path]]:
    """Returns the files that a run reads, by what they are."""
    return {
        "the float model": [Path(model)] if isinstance(model, (str, os.PathLike)) else [],
        "external data of the float model": external_files(loaded),
        "the data": data_files(data),
        "the validation data": data_files(validation),
    }


def _weight_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _emitter(
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
