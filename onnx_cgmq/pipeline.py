"""quantize(): the one place where the whole line can be read from top to bottom."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnx_cgmq.bits import Role
from onnx_cgmq.config import Config
from onnx_cgmq.cost.bound import plain
from onnx_cgmq.cost.notes import cost_notes
from onnx_cgmq.data.readers import is_object_path
from onnx_cgmq.data.source import Samples, open_data
from onnx_cgmq.errors import ConfigError, OutputError
from onnx_cgmq.events import EpochDone, Event, Finished, Limit, MetricsLog, Notice, Started
from onnx_cgmq.graph.files.load import ModelLike, save_model
from onnx_cgmq.graph.gating.insert import insert_gates
from onnx_cgmq.graph.lower.form import Form
from onnx_cgmq.graph.lower.gated import GatedTensors
from onnx_cgmq.graph.lower.ort import ort_kernels
from onnx_cgmq.graph.lower.write import write_back
from onnx_cgmq.graph.preparation.prepare import prepare
from onnx_cgmq.graph.sizes import open_inputs
from onnx_cgmq.inspection import Report, inspect
from onnx_cgmq.inspection.surprises import surprises
from onnx_cgmq.output import check_writable, write_text
from onnx_cgmq.plan import BitPlan
from onnx_cgmq.verification import Check, verify

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.cost.bound import Bounds
    from onnx_cgmq.learn.loop import Outcome
    from onnx_cgmq.mirror.module import Mirror

Progress = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """What a run made.

    Attributes:
        model: The quantized model, as onnxruntime loads it.
        plan: Widths, ranges and cost of every tensor.
        report: Widths and cost, read back from the written model alone, and for the form ``ort``
            the kernels that onnxruntime runs.
        check: The written model in onnxruntime against the mirror, on held-out data.
        outcome: How learning ended.
        mirror: The trained mirror, for :func:`~onnx_cgmq.verification.verify` on other data.
        history: One record per epoch.
    """

    model: ir.Model
    plan: BitPlan
    report: Report
    check: Check
    outcome: Outcome
    mirror: Mirror = field(repr=False)
    history: tuple[dict[str, Any], ...] = field(repr=False)

    @property
    def complete(self) -> bool:
        """Whether the run went to its end; otherwise this is the best feasible model so far."""
        return self.outcome.complete

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model, and its plan beside it (``NAME.plan.json``), atomically.

        Raises:
            OutputError: A file can't be written.
        """
        target = Path(path)
        save_model(self.model, target)
        write_text(plan_path(target), self.plan.to_json() + "\n")


def plan_path(model_path: Path) -> Path:
    """Where the plan of a model is saved."""
    return model_path.with_suffix(".plan.json")


def checkpoint_path(model_path: Path) -> Path:
    """Where the checkpoint of a run is kept until the run is complete."""
    return model_path.with_suffix(".checkpoint")


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
    **settings: Any,
) -> Result:
    """Learns bit-widths, ranges and weights under a bound, and writes them back into ONNX.

    Args:
        model: A float ONNX model: path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        data: Training samples; labels are optional (README, "Data").
        bound: ``"0.4%"`` of the float model's bit operations, ``"12.5MBOP"``, a size
            (``"200KB"``), peak bytes of activations (``"activations:64KB"``), a cost by the
            target's table (``"cost:25%"``); or several of these, which are all kept.
        output: File to write; its folder also holds plan and checkpoint. ``None`` writes nothing.
        validation: Held-out samples to choose the best state on; by default a part of ``data``.
        config: Settings; or give them by name as ``settings``.
        resume: Go on from the checkpoint of a run that was killed or interrupted.
        progress: Called with an :class:`~onnx_cgmq.events.Event` at every step and epoch.
        log: File that gets one JSON line for each epoch.
        **settings: Fields of :class:`~onnx_cgmq.config.Config`.

    Returns:
        The result; ``result.complete`` is false after Ctrl-C or a time limit, in which case it
        holds the best feasible model so far.

    Raises:
        ModelError: The model can't be read or has nothing to quantize.
        UnsupportedOperatorError: The mirror lacks operators of the model.
        DataError: The data can't be read or does not fit the model.
        BoundError: The bound can't be parsed or can't be kept.
        ConfigError: A setting is invalid.
        OutputError: The output can't be written.
        VerificationError: The written model breaks the bound (nothing is written then).
    """
    if config is not None and settings:
        raise ConfigError(f"give config or settings, not both: {', '.join(settings)}")
    config = config or Config.create(**settings)
    float_model = prepare(model, runtime=config.runtime)
    samples = open_data(data, float_model)
    config = _at_sizes_of(samples, float_model, config)
    gated = insert_gates(float_model, config)
    train, held_out = _split(samples, validation, float_model, config)

    import torch

    from onnx_cgmq.learn.allocator import keep_freed_memory
    from onnx_cgmq.learn.batches import tensors
    from onnx_cgmq.learn.calibrate import calibrate
    from onnx_cgmq.learn.checkpoint import Checkpoint
    from onnx_cgmq.learn.cuts import loss_tensors
    from onnx_cgmq.learn.evaluation import Evaluator
    from onnx_cgmq.learn.guide import Guide
    from onnx_cgmq.learn.loop import Learner, guided_steps
    from onnx_cgmq.learn.losses import class_output, make_loss
    from onnx_cgmq.learn.teacher import Teacher
    from onnx_cgmq.mirror.module import Mirror

    keep_freed_memory()
    torch.manual_seed(config.seed)
    mirror = Mirror(gated)
    teacher = Mirror(float_model)
    guide = Guide(
        mirror,
        bound,
        target=config.target,
        direction=config.direction,
        steps=guided_steps(train, config),
    )
    checkpoint = None
    if output is not None:
        _check_outputs(Path(output), log, model, mirror)
        checkpoint = Checkpoint(
            checkpoint_path(Path(output)),
            _fingerprint(config, guide.budget.text, len(train), float_model),
        )
    history: list[dict[str, Any]] = []
    metrics = None if log is None else MetricsLog(log, append=resume)
    emit = _emitter(progress, metrics, history)

    calibrate(mirror, train)
    first = next(train.batches(config.batch_size))
    compared = loss_tensors(
        teacher,
        tensors(first.inputs),
        [
            name
            for name, quantizer in mirror.quantizers.items()
            if quantizer.spec.role is Role.WEIGHT
        ],
        all_outputs=is_object_path(config.loss),
    )
    train_teacher = Teacher(teacher, len(train), compared.names)
    classes = class_output(train_teacher.outputs(first), len(first.indices))
    loss = make_loss(config.loss, classes, train.has_labels, first.targets.keys(), compared.names)
    held_out_teacher = Teacher(teacher, len(held_out), compared.names)
    evaluator = Evaluator(held_out, held_out_teacher, loss, classes, config.batch_size)
    learner = Learner(
        mirror, guide, train, train_teacher, loss, evaluator, config, emit, checkpoint
    )
    emit(
        Started(
            total_steps=learner.total_steps,
            epochs=config.epochs,
            float_accuracy=evaluator.teacher_accuracy(),
            bounds=tuple(Limit(b.text, plain(b.limit), b.unit_text) for b in guide.bounds),
        )
    )
    onnxruntime = config.form is Form.ORT
    for note in cost_notes(gated, kernels=onnxruntime and config.integer_kernels):
        emit(Notice(note))
    if compared.cuts:
        emit(Notice(compared.text))
    outcome = learner.run(resume=resume)

    plan = mirror.plan()
    deployed = write_back(gated, plan, form=config.form)
    check = verify(deployed, mirror, held_out, bound=guide.bounds, target=config.target)
    report = inspect(deployed, kernels=onnxruntime)
    for note in surprises(ort_kernels(GatedTensors(gated, plan)), report) if onnxruntime else ():
        emit(Notice(note))
    result = Result(deployed, plan, report, check, outcome, mirror, tuple(history))
    if output is not None:
        result.save(output)
        if outcome.complete and checkpoint is not None:
            checkpoint.remove()
    emit(Finished(complete=outcome.complete, reason=outcome.reason))
    return result


def _split(
    samples: Samples, validation: Any, model: ir.Model, config: Config
) -> tuple[Samples, Samples]:
    """Training and held-out samples."""
    if validation is None:
        return samples.split(config.validation_share, config.seed)
    return samples, open_data(validation, model)


def _at_sizes_of(samples: Samples, model: ir.Model, config: Config) -> Config:
    """Settings that count cost at the sizes of the first sample, where the user gave none."""
    missing = [name for name in open_inputs(model) if name not in config.shapes]
    if not missing:
        return config
    first = next(samples.batches(1)).inputs
    shapes = {name: tuple(first[name].shape) for name in missing}
    return config.model_copy(update={"shapes": {**shapes, **config.shapes}})


def _check_outputs(
    output: Path, log: str | os.PathLike[str] | None, model: ModelLike, mirror: Mirror
) -> None:
    """Finds a full disk or an unwritable folder before training, not after."""
    if isinstance(model, (str, os.PathLike)) and output.exists() and output.samefile(model):
        raise OutputError(f"{output} is the float model itself; write to another file")
    float_bytes = 4 * sum(parameter.numel() for parameter in mirror.value_parameters.values())
    # The model is at most as large as the float one; the checkpoint has weights, Adam's, the best.
    check_writable(output, 6 * float_bytes + (1 << 20))
    if log is not None:
        check_writable(Path(log), 1 << 20)


def _fingerprint(config: Config, bound: str, samples: int, model: ir.Model) -> str:
    """Identifies a run: a checkpoint of another one is refused. The time limit may change."""
    settings = config.model_dump(mode="json", exclude={"time_limit"})
    weights = {
        name: zlib.crc32(value.const_value.tobytes())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    content = json.dumps([settings, bound, samples, weights], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _emitter(
    progress: Progress | None,
    log: MetricsLog | None,
    history: list[dict[str, Any]],
) -> Progress:
    """Sends events to the caller and the log, epochs to the history."""

    def emit(event: Event) -> None:
        if isinstance(event, EpochDone):
            history.append(event.to_record())
        if log is not None:
            log(event)
        if progress is not None:
            progress(event)

    return emit
