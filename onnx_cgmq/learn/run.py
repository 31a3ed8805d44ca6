"""One run of learning: from a gated model and data to a plan that keeps the bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
import torch

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import Event, Limit, Notice, StageStarted, Started
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.cost.bound import Bounds, json_number
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.errors import BoundError, ModelError
from onnx_cgmq.graph.files.load import tensors_of
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.checkpoint import Checkpoint
from onnx_cgmq.learn.class_targets import check_class_targets
from onnx_cgmq.learn.evaluation import Evaluator
from onnx_cgmq.learn.fingerprint import fingerprint
from onnx_cgmq.learn.given_ranges import start_from
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loop import Learner
from onnx_cgmq.learn.loss_function import is_own
from onnx_cgmq.learn.loss_tensors import loss_tensors
from onnx_cgmq.learn.losses import class_output, make_loss
from onnx_cgmq.learn.malloc import FreedMemory, freed_memory_kept
from onnx_cgmq.learn.memory import (
    STEP_BYTES,
    StepMemory,
    bytes_per_sample,
    is_by_sample,
    measure_step,
)
from onnx_cgmq.learn.outcome import Outcome
from onnx_cgmq.learn.schedule import Schedule, choose_schedule
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.settings.config import Config

_FIRST_SAMPLES: Final = 7
"""Samples that show what the outputs are. Few, because they are run with gradients; and a number
that hardly any output has as a size of its own."""


@dataclass(frozen=True)
class Data:
    """The samples of a run.

    Attributes:
        train: The samples to train on.
        held_out: The samples by which the best state is chosen.
    """

    train: Samples
    held_out: Samples


@dataclass(frozen=True)
class Learned:
    """What a run learned.

    Attributes:
        guide: The guide of the trained mirror.
        outcome: How learning ended.
        checkpoint: Where the state of the run is saved, if anywhere.
    """

    guide: Guide
    outcome: Outcome
    checkpoint: Checkpoint | None

    @property
    def mirror(self) -> Mirror:
        """The trained mirror."""
        return self.guide.mirror

    def plan(self) -> BitPlan:
        """Returns the learned plan, which keeps the bound."""
        return self.guide.plan()


@freed_memory_kept()
def learn(
    float_model: ir.Model,
    gated: ir.Model,
    bound: Bounds,
    data: Data,
    config: Config,
    emit: Callable[[Event], None],
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Learned:
    """Calibrates and trains a gated model under a bound, with the float model as teacher.

    The loss is the one of ``config``. It compares the tensors that
    :func:`~onnx_cgmq.learn.loss_tensors.loss_tensors` chooses.

    Args:
        float_model: The prepared float model.
        gated: The gated model that was made of it.
        bound: One bound or several.
        data: The samples.
        config: The settings of the run.
        emit: Is called with progress events.
        checkpoint: The file in which the state is saved after each epoch, if any.
        resume: Go on from that file, if it exists.

    Returns:
        The guide with the trained mirror, and how learning ended.

    Raises:
        UnsupportedOperatorError: The mirror lacks operators of the model.
        ModelError: No output has a gradient to a weight, or the float model's outputs are not
            finite.
        BoundError: The bound can't be parsed or kept.
        DataError: The data does not fit the loss.
        ConfigError: The loss is unknown, or the checkpoint is damaged or belongs to another run.
        OutputError: The file for the checkpoint is something else, which would be overwritten.
    """
    train, held_out = data.train, data.held_out
    freed = FreedMemory()
    emit(StageStarted("measure memory"))
    mirror = Mirror(gated)
    memory = measure_step(mirror, train)
    config, micro_batch = _within_memory(config, memory, mirror, train, emit)
    largest = config.model_copy(
        update={"batch_size": min(config.batch_size, memory.samples_within(None))}
    )
    schedule = choose_schedule(largest, train, mirror, _activation_bytes(mirror, train))
    guide = _guide(mirror, bound, config, schedule, train)
    saved = state = None
    if checkpoint is not None:
        run = fingerprint(config, guide.budget.text, train, held_out, float_model)
        saved = Checkpoint(checkpoint, run)
        if resume:
            state = saved.load()
        elif note := saved.note_on_earlier():
            emit(Notice(note))
    emit(StageStarted("calibrate"))
    calibrate(mirror, train)
    if config.plan is not None:
        start_from(guide, config.plan)

    emit(StageStarted("run the float model"))
    teacher = Mirror(float_model)
    first = next(
        train.batches(min(config.batch_size, micro_batch or _FIRST_SAMPLES, _FIRST_SAMPLES))
    )
    compared = loss_tensors(
        teacher,
        tensors(first.inputs),
        mirror.tensors_of(Role.WEIGHT),
        all_outputs=is_own(config.loss),
    )
    freed.limit()
    taught = Teacher(teacher, len(train), compared.names, micro_batch)
    classes = class_output(taught.outputs(first), len(first.indices))
    if not is_own(config.loss):
        for samples in (train, held_out):
            scores = None if classes is None else classes.name
            check_class_targets(samples, taught.outputs(first), scores)
        _check_defined(taught, train, config.batch_size, float_model)
    freed.limit()
    loss = make_loss(config.loss, classes, train.has_labels, first.targets.keys(), compared.names)
    held_out_teacher = Teacher(teacher, len(held_out), compared.names, micro_batch)
    evaluator = Evaluator(held_out, held_out_teacher, loss, classes, config.batch_size, micro_batch)
    learner = Learner(
        guide,
        train,
        taught,
        loss,
        evaluator,
        config,
        emit,
        saved,
        schedule=schedule,
        micro_batch=micro_batch,
    )
    emit(
        Started(
            total_steps=learner.total_steps,
            epochs=schedule.epochs,
            float_accuracy=evaluator.teacher_accuracy(),
            bounds=tuple(Limit(b.text, json_number(b.limit), b.unit_text) for b in guide.bounds),
            expected_seconds=_expected_seconds(schedule, guide, train, config),
        )
    )
    if compared.without_gradient:
        emit(Notice(compared.text))
    emit(StageStarted("learn"))
    return Learned(guide, learner.run(state), saved)


def _guide(
    mirror: Mirror, bound: Bounds, config: Config, schedule: Schedule, train: Samples
) -> Guide:
    try:
        return Guide(
            mirror,
            bound,
            target=config.target,
            direction=config.direction,
            steps=schedule.moves(train, config.batch_size),
            interval=None if schedule.stages is None else 1,
        )
    except BoundError as error:
        if config.fixed_plan is None:
            raise
        raise BoundError(
            f"{error}; {config.fixed_plan.source} fixes widths, which plan_use='start' "
            "(--plan-use start) lets narrow"
        ) from error


def _activation_bytes(mirror: Mirror, train: Samples) -> int:
    """Returns the bytes of the activations that are quantized, for one sample."""
    names = mirror.tensors_of(Role.ACTIVATION)
    return bytes_per_sample(mirror, train, names) if names else 1


def _within_memory(
    config: Config,
    memory: StepMemory,
    mirror: Mirror,
    train: Samples,
    emit: Callable[[Event], None],
) -> tuple[Config, int | None]:
    """Makes training steps fit into memory, with a note.

    Returns:
        The settings, with smaller batches where samples can't be computed apart; and how many
        samples to compute at once, ``None`` for whole batches.
    """
    fits, wanted = memory.samples_within(STEP_BYTES), min(config.batch_size, len(train))
    if fits >= wanted or train.unbatched or train.fixed_batch is not None:
        return config, None
    if is_by_sample(mirror, train):
        if config.epochs is not None:
            emit(
                Notice(f"batches of {wanted} samples need much memory: {fits} are computed at once")
            )
        return config, fits
    if config.epochs is not None:
        emit(Notice(f"batches have {fits} samples, because {config.batch_size} need much memory"))
    return config.model_copy(update={"batch_size": fits}), None


def _expected_seconds(
    schedule: Schedule, guide: Guide, train: Samples, config: Config
) -> float | None:
    """About how long learning will take, from the time of a run of a few samples."""
    if schedule.stages is None:
        return None
    first = next(train.batches(min(schedule.stages.batch_size, _FIRST_SAMPLES)))
    inputs = tensors(first.inputs)
    with torch.no_grad():
        guide.mirror(inputs)  # the first run of a shape takes longer
        began = time.perf_counter()
        guide.mirror(inputs)
        forward = (time.perf_counter() - began) / len(first.indices)
    passes = 0
    if guide.needs_losses(config.integer_kernels):
        ladders = [guide.mirror.quantizers[name].spec.ladder for name in guide.counted]
        passes = sum(len(ladder.quantized) for ladder in ladders)
    return schedule.expected_seconds(forward, len(train), passes)


def _check_defined(
    teacher: Teacher, samples: Samples, batch_size: int, float_model: ir.Model
) -> None:
    """Refuses a float model that gives nothing to compare with.

    Raises:
        ModelError: Not one of its values is finite on the data.
    """
    for batch in samples.batches(batch_size):
        if teacher.is_defined:
            return
        teacher.outputs(batch)
    if not teacher.is_defined:
        constants = [
            f"'{name}'"
            for name, tensor in tensors_of(float_model)
            if tensor.dtype is ir.DataType.FLOAT and not np.isfinite(tensor.numpy()).all()
        ]
        found = (
            f"its constants {', '.join(constants)} have such values"
            if constants
            else ("look for constants or samples that overflow")
        )
        raise ModelError(
            "the float model gives nothing but NaN and infinity on this data: "
            f"{teacher.undefined_text}; {found}; check the model in onnxruntime"
        )
