"""The training loop: guides the gates under the bound, settles them, fine-tunes, keeps the best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import EpochDone, Event, Notice, StageDone, StageProgress, StepDone
from onnx_cgmq.contract.stopped import Stopped
from onnx_cgmq.cost.bound import json_number
from onnx_cgmq.data.source import Batch, Samples
from onnx_cgmq.errors import OutputError
from onnx_cgmq.learn import processes
from onnx_cgmq.learn.checkpoint import Checkpoint
from onnx_cgmq.learn.evaluation import Evaluator
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loss_function import LossFunction, is_own
from onnx_cgmq.learn.micro_batches import add_gradients
from onnx_cgmq.learn.optimizer import Optimizer, schedule
from onnx_cgmq.learn.outcome import NOT_FINITE, Outcome
from onnx_cgmq.learn.schedule import CAREFUL_PACE, Schedule
from onnx_cgmq.learn.snapshot import Best, UntrainedState, snapshot
from onnx_cgmq.learn.stage_work import StageWork
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.settings.config import Config

_MOST_LOST_STEPS = 50
"""After this many training steps in a row without a finite gradient, the run ends as diverged. Our
choice."""

_SECONDS_BETWEEN_SAVES = 60.0
"""How often the state is saved within a stage, so that a killed run can go on there. Our choice."""


class Learner:
    """One run of learning.

    Attributes:
        guide: The guide of the gates.
        mirror: Its mirror. After :meth:`run` it has the best state that keeps the bound.
        train: The training data.
        teacher: The float model's outputs on the training data.
        loss: The loss.
        evaluator: Evaluates states on held-out data, by which the best one is chosen.
        config: The settings of the run.
        schedule: What the run does.
        emit: Is called with progress events.
        checkpoint: Where the state is saved after each epoch, if anywhere.
        best: The best state that keeps the bound so far.
        total_steps: Number of training steps of the whole run.
    """

    def __init__(
        self,
        guide: Guide,
        train: Samples,
        teacher: Teacher,
        loss: LossFunction,
        evaluator: Evaluator,
        config: Config,
        emit: Callable[[Event], None],
        checkpoint: Checkpoint | None = None,
        *,
        schedule: Schedule,
        micro_batch: int | None = None,
    ) -> None:
        """Prepares a run that starts from the present state of the guide's mirror.

        The arguments are the attributes of the same names; batches are computed by
        ``micro_batch`` samples.
        """
        self.best = Best()
        self.guide, self.mirror = guide, guide.mirror
        self.train, self.teacher, self.loss = train, teacher, loss
        self.evaluator, self.config = evaluator, config
        self.emit, self.checkpoint, self.schedule = emit, checkpoint, schedule
        self._steps_per_epoch = train.batch_count(config.batch_size)
        self.total_steps: int = self._steps_per_epoch * schedule.epochs
        self._guided = schedule.guided_steps(train, config.batch_size)
        self._optimizer = Optimizer(self.mirror, config)
        self._untrained = UntrainedState(self.mirror)
        self._began = time.monotonic()
        self._step, self._micro_batch, self._epochs = 0, micro_batch, 0
        self._lost_steps = 0  # the last steps in a row that had no finite gradient
        self._loss_sum = 0.0  # over the training steps of this epoch so far
        self._settled = False
        self._staged = False  # whether the stages before training end to end are done
        self._work = StageWork(guide, train, teacher, loss, config, self._show_stage)
        self._saved = time.monotonic()
        self._pace = 1.0  # a factor of all learning rates
        self._told = False  # what the teacher leaves undefined

    def run(self, state: dict[str, Any] | None = None) -> Outcome:
        """Learns, and leaves the best state that keeps the bound in the mirror.

        Ctrl-C, the time limit and divergence end learning early. There is a state that keeps the
        bound even then.

        Args:
            state: The state to go on from, which the checkpoint had; ``None`` starts anew.

        Raises:
            ConfigError: It is not a state of this run.
        """
        if state is not None:
            try:
                self._restore(state)
            except Exception as error:  # torch raises many kinds of errors for a damaged state
                if self.checkpoint is None:  # it is the first process that has read the file
                    raise
                raise self.checkpoint.damaged(error) from error
        self._began = time.monotonic()
        reason = "complete"
        try:
            self._run_stages()
            for epoch in range(self._epochs, self.schedule.epochs):
                self._epoch(epoch)
        except KeyboardInterrupt:
            reason = "interrupted"
        except Stopped as stop:
            reason = stop.reason
        if reason != "complete":
            processes.leave()
            self._save()
        if reason != "complete" or self.best.state is None:
            if not self._settled:
                self._settle()
            self._keep_if_best(
                min(self._epochs + 1, self.schedule.epochs), *self.evaluator.evaluate(self.mirror)
            )
        self._tell_undefined()
        if reason in ("complete", "diverged") and not math.isfinite(self.best.loss):
            reason = NOT_FINITE
        self.best.restore(self.mirror)
        self.guide.release()
        return Outcome(
            complete=reason == "complete",
            reason=reason,
            epochs=round(self._step / self._steps_per_epoch, 3),
            best_epoch=self.best.epoch,
            validation_loss=self.best.loss,
            validation_accuracy=self.best.accuracy,
        )

    # -- stages before training end to end --

    def _run_stages(self) -> None:
        """Allocates widths and reconstructs; what the held-out data say is better is kept."""
        stages = self.schedule.stages
        if stages is None or self._staged:
            return
        began = time.monotonic()
        if not self._settled:
            self._work.allocate(stages)
            self._settled = True
        if self.best.state is None:  # else it is the calibrated state, which the checkpoint had
            self._end_stage("calibrated", began)
        if stages.reconstruction_steps:
            began = time.monotonic()
            self._work.reconstruct(stages, self.best)
            self._end_stage("reconstructed", began)
        self.best.restore(self.mirror)
        self._optimizer, self._pace = Optimizer(self.mirror, self.config), self.schedule.pace
        self._staged = True
        self._save()

    def _show_stage(self, stage: str, done: int, total: int) -> None:
        self.emit(StageProgress(stage, done, total))
        if time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES:
            self._save()
        self._check_time()

    def _end_stage(self, stage: str, began: float) -> None:
        loss, accuracy = self.evaluator.evaluate(self.mirror)
        self._keep_if_best(0, loss, accuracy)
        self.emit(StageDone(stage, loss, accuracy, time.monotonic() - began))

    # -- one epoch ------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> None:
        began = time.monotonic()
        processes.same_state(self.mirror)
        self.mirror.train()
        for batch in self._batches(epoch):
            if not self._settled and self._step >= self._guided:
                self._settle()
            self._train_step(batch)
            self._check_time()
        self._tell_undefined()
        loss, accuracy = self.evaluator.evaluate(self.mirror)
        self._keep_if_best(epoch + 1, loss, accuracy)
        mean_loss = self._loss_sum / self._steps_per_epoch
        self._epochs, self._loss_sum = epoch + 1, 0.0
        self.emit(
            EpochDone(
                epoch=epoch + 1,
                phase=self._phase,
                loss=mean_loss,
                validation_loss=loss,
                validation_accuracy=accuracy,
                rbop=self.guide.cost_model.plan_cost(self.guide.widths).rbop,
                costs=tuple(map(json_number, self.guide.costs)),
                limits=tuple(json_number(bound.limit) for bound in self.guide.bounds),
                feasible=self.guide.satisfied,
                mean_bits_weights=self.guide.mean_bits(Role.WEIGHT),
                mean_bits_activations=self.guide.mean_bits(Role.ACTIVATION),
                seconds=time.monotonic() - began,
            )
        )
        self._save()

    def _check_time(self) -> None:
        limit = self.config.time_limit if processes.leads() else None
        if limit is not None and time.monotonic() - self._began > limit:
            raise Stopped("time limit")

    def _batches(self, epoch: int) -> Iterator[Batch]:
        # The order depends on seed and epoch only, so that a resumed run has the same batches.
        order = self.train.shuffled((self.config.seed, epoch))
        # A run that was stopped in the middle of an epoch has used some of them before.
        done = self._step - epoch * self._steps_per_epoch
        return self.train.batches(self.config.batch_size, order=order, skip=done)

    def _train_step(self, batch: Batch) -> None:
        self._optimizer.clear()
        value = add_gradients(self.mirror, batch, self.teacher, self.loss, self._micro_batch)
        rate = self._pace * schedule(self._step, self._guided, self.total_steps)
        learned = self._optimizer.step(rate)
        if learned and not self._settled:
            self.guide.step()
        self._step += 1
        self._loss_sum += value
        self.emit(
            StepDone(
                step=self._step,
                total_steps=self.total_steps,
                phase=self._phase,
                loss=value,
                cost_ratio=self.guide.budget.ratio(self.guide.costs),
            )
        )
        self._count_lost_steps(learned)

    def _count_lost_steps(self, learned: bool) -> None:
        """Counts training steps without an update: reports the first, and stops after many."""
        self._lost_steps = 0 if learned else self._lost_steps + 1
        if self._lost_steps == 1:
            self.emit(
                Notice(f"step {self._step}: a gradient is not finite, so this step changes nothing")
            )
        if self._lost_steps >= _MOST_LOST_STEPS:
            raise Stopped("diverged")

    def _tell_undefined(self) -> None:
        """Says once what the loss leaves out, when the teacher has seen the samples."""
        text = self.teacher.undefined_text
        if text and not self._told:
            left_out = "" if is_own(self.config.loss) else "; the loss leaves them out"
            self.emit(
                Notice(f"the float model itself gives values that are not finite: {text}{left_out}")
            )
            self._told = True

    @property
    def _phase(self) -> str:
        return "settled" if self._settled else "guided"

    def _settle(self) -> None:
        before = snapshot(self.mirror)
        try:
            self.guide.settle(self.config.integer_kernels)
            self._settled = True
            self._undo_harmful_training()
        except BaseException:  # Ctrl-C above all: what is half done is no state to go on from
            self.mirror.load_state_dict(before)
            self._settled = False
            raise

    def _undo_harmful_training(self) -> None:
        """Goes back to the untrained weights if these are better with the settled widths."""
        trained = snapshot(self.mirror)
        loss, _ = self.evaluator.evaluate(self.mirror)
        self._untrained.restore(self.mirror, self.guide)
        first = self.evaluator.evaluate(self.mirror)
        if first[0] < loss or (math.isfinite(first[0]) and not math.isfinite(loss)):
            self._keep_if_best(self._epochs, *first)
            self._optimizer = Optimizer(self.mirror, self.config)
            self._pace = CAREFUL_PACE
            self.emit(
                Notice(
                    f"training has done more harm than good so far (loss on held-out data: "
                    f"{loss:.4f} trained, {first[0]:.4f} untrained), so it goes on from the "
                    "untrained weights with a tenth of the learning rate"
                )
            )
        else:
            self.mirror.load_state_dict(trained)

    # -- the best state -------------------------------------------------------------------------

    def _keep_if_best(self, epoch: int, loss: float, accuracy: float | None) -> None:
        """Keeps the mirror's state if it is settled, keeps the bound, and is the best so far."""
        loss = math.inf if math.isnan(loss) else loss
        feasible = self._settled and self.guide.satisfied
        if feasible and (loss < self.best.loss or self.best.state is None):
            self.best = Best(loss, accuracy, epoch, snapshot(self.mirror))

    # -- checkpoints ----------------------------------------------------------------------------

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        self._saved = time.monotonic()
        try:
            self.checkpoint.save(self._state())
        except OutputError as error:  # being unable to resume is no reason to stop learning
            self.emit(Notice(f"{error}; learning goes on, but can't be resumed from here"))

    def _state(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "epochs": self._epochs,
            "loss_sum": self._loss_sum,
            "settled": self._settled,
            "staged": self._staged,
            "stages": self._work.state_dict(),
            "pace": self._pace,
            "mirror": self.mirror.state_dict(),
            "optimizer": self._optimizer.adam.state_dict(),
            "guide": self.guide.state_dict(),
            "best": vars(self.best),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._step, self._epochs = state["step"], state["epochs"]
        self._loss_sum, self._pace = state["loss_sum"], state["pace"]
        self._settled, self._staged = state["settled"], state["staged"]
        self._work.load_state_dict(state["stages"])
        self.mirror.load_state_dict(state["mirror"])
        self._optimizer.adam.load_state_dict(state["optimizer"])
        self.guide.load_state_dict(state["guide"])
        self.best = Best(**state["best"])
        if self._settled:
            self.guide.release()
