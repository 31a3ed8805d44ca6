"""A run that is opened: all that learning needs whatever the bound, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import onnx_ir as ir
from torch import Tensor

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import Event, Notice, StageStarted
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import tensors_of
from onnx_cgmq.learn import processes
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.class_targets import check_class_targets
from onnx_cgmq.learn.evaluation import Evaluator
from onnx_cgmq.learn.loss_function import LossFunction, is_own
from onnx_cgmq.learn.loss_tensors import LossTensors, loss_tensors
from onnx_cgmq.learn.losses import class_output, make_loss
from onnx_cgmq.learn.malloc import FreedMemory, freed_memory_kept
from onnx_cgmq.learn.memory import (
    STEP_BYTES,
    StepMemory,
    bytes_per_sample,
    is_by_sample,
    measure_step,
)
from onnx_cgmq.learn.schedule import Schedule, choose_schedule
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.devices import chosen_device
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.settings.config import Config

FIRST_SAMPLES: Final = 7
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
class Judgement:
    """What states of a mirror are judged by.

    Attributes:
        compared: The tensors that the loss compares.
        teacher: The float model's outputs on the training samples.
        loss: The loss.
        evaluator: Evaluates states on held-out samples.
    """

    compared: LossTensors
    teacher: Teacher
    loss: LossFunction
    evaluator: Evaluator


@dataclass(frozen=True)
class OpenedRun:
    """A gated model and data to learn on, under one bound or under several, one after the other.

    Attributes:
        float_model: The prepared float model.
        mirror: The mirror of the gated model.
        data: The samples.
        config: The settings of the run; batches have a size that fits into memory.
        schedule: What is done under a bound.
        micro_batch: How many samples are computed at once; ``None`` for whole batches.
        measured: The losses that were measured so far, for
            :attr:`~onnx_cgmq.learn.guide.Guide.measured`. They do not depend on the bound.
        emit: Is called when a stage begins.
    """

    float_model: ir.Model
    mirror: Mirror
    data: Data
    config: Config
    schedule: Schedule
    micro_batch: int | None
    emit: Callable[[Event], None] = field(repr=False)
    measured: dict[str, Mapping[int, float]] = field(default_factory=dict)

    @classmethod
    @freed_memory_kept()
    def open(
        cls,
        float_model: ir.Model,
        gated: ir.Model,
        data: Data,
        config: Config,
        emit: Callable[[Event], None],
    ) -> OpenedRun:
        """Makes the mirror, and chooses what to do within the memory that there is.

        Args:
            float_model: The prepared float model.
            gated: The gated model that was made of it.
            data: The samples.
            config: The settings of the run.
            emit: Is called with notes, and when a stage begins.

        Raises:
            UnsupportedOperatorError: The mirror lacks operators of the model.
            ModelError: A training step on a single sample does not fit into memory.
            ConfigError: There is no such device as the settings name.
        """
        emit(StageStarted("measure memory"))
        mirror = Mirror(gated).to(chosen_device(config.device))
        if processes.count() > 1:  # what is read anew may come in another order in each of them
            data = Data(data.train.fixed(), data.held_out.fixed())
        train = data.train
        memory = processes.of_first(measure_step(mirror, train))
        config, micro_batch = _within_memory(config, memory, mirror, train, emit)
        largest = config.model_copy(
            update={"batch_size": min(config.batch_size, memory.samples_within(None))}
        )
        schedule = choose_schedule(largest, train, mirror, _activation_bytes(mirror, train))
        return cls(float_model, mirror, data, config, schedule, micro_batch, emit)

    @cached_property
    def judgement(self) -> Judgement:
        """Calibrates the mirror, and makes what its states are judged by; only at the first use.

        The loss is the one of the settings. It compares the tensors that
        :func:`~onnx_cgmq.learn.loss_tensors.loss_tensors` chooses.

        Raises:
            UnsupportedOperatorError: The mirror lacks operators of the float model.
            ModelError: No output has a gradient to a weight, or the float model's outputs are not
                finite.
            DataError: The data does not fit the loss.
            ConfigError: The loss is unknown.
        """
        train, held_out, config = self.data.train, self.data.held_out, self.config
        micro_batch, freed = self.micro_batch, FreedMemory()
        self.emit(StageStarted("calibrate"))
        calibrate(self.mirror, train)
        self.emit(StageStarted("run the float model"))
        teacher = Mirror(self.float_model).to(self.mirror.device)
        first = next(
            train.batches(min(config.batch_size, micro_batch or FIRST_SAMPLES, FIRST_SAMPLES))
        )
        compared = loss_tensors(
            teacher,
            tensors(first.inputs),
            self.mirror.tensors_of(Role.WEIGHT),
            all_outputs=is_own(config.loss),
        )
        freed.limit()
        taught = Teacher(teacher, len(train), compared.names, micro_batch)
        processes.same_state(self.mirror)
        self._split_rows(taught.outputs(first).values(), len(first.indices))
        classes = class_output(taught.outputs(first), len(first.indices))
        if not is_own(config.loss):
            for samples in (train, held_out):
                scores = None if classes is None else classes.name
                check_class_targets(samples, taught.outputs(first), scores)
            _check_defined(taught, train, config.batch_size, self.float_model)
        freed.limit()
        loss = make_loss(
            config.loss, classes, train.has_labels, first.targets.keys(), compared.names
        )
        evaluator = Evaluator(
            held_out,
            Teacher(teacher, len(held_out), compared.names, micro_batch),
            loss,
            classes,
            config.batch_size,
            micro_batch,
        )
        return Judgement(compared, taught, loss, evaluator)

    def _split_rows(self, outputs: Iterable[Tensor], rows: int) -> None:
        """Lets several processes split batches, if samples do not depend on each other."""
        if processes.count() == 1:
            return
        has_rows = all(value.dim() and len(value) == rows for value in outputs)
        allowed = has_rows and is_by_sample(self.mirror, self.data.train)
        processes.split_rows(processes.of_first(allowed))
        if not allowed:
            self.emit(
                Notice(
                    "outputs of samples depend on each other, or the model fixes the size of a "
                    "batch, so all processes compute the same: more than one gains little"
                )
            )


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
    wanted = min(config.batch_size, len(train))
    fits = memory.samples_within(STEP_BYTES if mirror.device.type == "cpu" else None)
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


def _check_defined(
    teacher: Teacher, samples: Samples, batch_size: int, float_model: ir.Model
) -> None:
    """Refuses a float model that gives nothing to compare with.

    Raises:
        ModelError: Not one of its values is finite on the data.
    """
    for batch in samples.batches(samples.at_once(batch_size)):
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
