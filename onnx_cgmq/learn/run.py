"""Learning under one bound: from a run that is opened to a plan that keeps the bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from onnx_cgmq.contract.events import Event, Limit, Notice, StageStarted, Started
from onnx_cgmq.contract.launch import Launch
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.cost.bound import Bounds, json_number
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.errors import BoundError, ConfigError
from onnx_cgmq.learn import processes
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.checkpoint import Checkpoint
from onnx_cgmq.learn.fingerprint import Fingerprint, differences, fingerprint
from onnx_cgmq.learn.given_ranges import start_from
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loop import Learner
from onnx_cgmq.learn.malloc import freed_memory_kept
from onnx_cgmq.learn.opened_run import FIRST_SAMPLES, OpenedRun
from onnx_cgmq.learn.outcome import Outcome
from onnx_cgmq.learn.schedule import Schedule
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.settings.config import Config


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
    run: OpenedRun,
    bound: Bounds,
    emit: Callable[[Event], None],
    *,
    schedule: Schedule | None = None,
    time_limit: float | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Learned:
    """Trains a gated model under a bound, with the float model as teacher.

    Args:
        run: The run. Its mirror is in the calibrated state, or not calibrated yet.
        bound: One bound or several.
        emit: Is called with progress events.
        schedule: What to do; by default what the run has chosen.
        time_limit: Seconds after which learning stops; by default those of the settings.
        checkpoint: The file in which the state is saved after each epoch, if any.
        resume: Go on from that file, if it exists.

    Returns:
        The guide with the trained mirror, and how learning ended.

    Raises:
        UnsupportedOperatorError: The mirror lacks operators of the float model.
        ModelError: No output has a gradient to a weight, or the float model's outputs are not
            finite.
        BoundError: The bound can't be parsed or kept.
        DataError: The data does not fit the loss.
        ConfigError: The loss is unknown, or the checkpoint is damaged or belongs to another run.
        OutputError: The file for the checkpoint is something else, which would be overwritten.
    """
    train, held_out = run.data.train, run.data.held_out
    schedule, config = schedule or run.schedule, run.config
    if time_limit is not None:
        config = config.model_copy(update={"time_limit": time_limit})
    guide = _guide(run.mirror, bound, config, schedule, train)
    guide.measured = run.measured
    saved = state = None
    if checkpoint is not None or processes.count() > 1:
        mark = fingerprint(config, guide.budget.text, train, held_out, run.float_model)
        _check_alike(mark)
        saved = None if checkpoint is None else Checkpoint(checkpoint, mark)
    if saved is not None and resume:
        state = saved.load()
    elif saved is not None and (note := saved.note_on_earlier()):
        emit(Notice(note))
    state = processes.of_first(state)
    judgement = run.judgement
    if config.plan is not None:
        start_from(guide, config.plan)
    learner = Learner(
        guide,
        train,
        judgement.teacher,
        judgement.loss,
        judgement.evaluator,
        config,
        emit,
        saved,
        schedule=schedule,
        micro_batch=run.micro_batch,
    )
    emit(
        Started(
            total_steps=learner.total_steps,
            epochs=schedule.epochs,
            float_accuracy=judgement.evaluator.teacher_accuracy(),
            bounds=tuple(Limit(b.text, json_number(b.limit), b.unit_text) for b in guide.bounds),
            expected_seconds=_expected_seconds(schedule, guide, train, config),
        )
    )
    if judgement.compared.without_gradient:
        emit(Notice(judgement.compared.text))
    emit(StageStarted("learn"))
    outcome = learner.run(state)
    run.measured.update(guide.measured)
    return Learned(guide, outcome, saved)


def _check_alike(mark: Fingerprint) -> None:
    """Refuses processes that do not learn the same.

    Raises:
        ConfigError: This one has other data, settings or weights than the first.
    """
    if differing := differences(processes.of_first(mark), mark):
        raise ConfigError(
            f"process {Launch.of_environment().rank} differs from process 0 in: "
            f"{', '.join(differing)}; give all of them the same (a factory that draws its samples "
            "at random needs a fixed seed)"
        )


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


def _expected_seconds(
    schedule: Schedule, guide: Guide, train: Samples, config: Config
) -> float | None:
    """About how long learning will take, from the time of a run of a few samples."""
    if schedule.stages is None:
        return None
    first = next(train.batches(min(schedule.stages.batch_size, FIRST_SAMPLES)))
    inputs = tensors(first.inputs)
    with torch.no_grad():
        _run(guide.mirror, inputs)  # the first run of a shape takes longer
        began = time.perf_counter()
        _run(guide.mirror, inputs)
        forward = (time.perf_counter() - began) / len(first.indices)
    passes = 0
    if guide.needs_losses(config.integer_kernels):
        ladders = [
            guide.mirror.quantizers[name].spec.ladder
            for name in guide.counted - guide.measured.keys()
        ]
        passes = sum(len(ladder.quantized) for ladder in ladders)
    return schedule.expected_seconds(forward, len(train), passes)


def _run(mirror: Mirror, inputs: Mapping[str, Tensor]) -> None:
    """Runs a mirror, and waits until its outputs are there."""
    for value in mirror(inputs).values():
        value.cpu()
