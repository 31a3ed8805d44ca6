"""The training loop: guide the gates under the bound, settle them, fine-tune, keep the best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnx_cgmq.bits import Role
from onnx_cgmq.config import Config
from onnx_cgmq.data.source import Batch, Samples
from onnx_cgmq.events import EpochDone, Event, StepDone
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.checkpoint import Checkpoint
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.losses import ClassOutput, LossFunction
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror

GUIDE_SHARE = 0.25
"""Part of the steps in which gates move; in the rest the widths are fixed and all else learns."""

_WARM_UP_SHARE = 0.02


@dataclass
class Best:
    """The best feasible state seen on held-out data."""

    loss: float = math.inf
    accuracy: float | None = None
    epoch: int = 0
    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """How learning ended.

    Attributes:
        complete: Whether all epochs were run.
        reason: ``"complete"``, ``"interrupted"`` or ``"time limit"``.
        epochs: Epochs that the run went through.
        best_epoch: Epoch of the state that was kept.
        validation_loss: Its loss on held-out data.
        validation_accuracy: Its accuracy there, if there are labels.
    """

    complete: bool
    reason: str
    epochs: float
    best_epoch: int
    validation_loss: float
    validation_accuracy: float | None


class _TimeIsUpError(Exception):
    pass


@dataclass
class Learner:
    """Everything that one run of learning holds.

    Attributes:
        mirror: The gated mirror; holds the best feasible state after :meth:`run`.
        guide: Its guide.
        teacher: The float model's outputs on the training data.
        validation_teacher: The same on the held-out data.
        train: Training data.
        validation: Held-out data.
        loss: The loss.
        classes: The output with class scores, if any.
        config: Settings.
        emit: Takes progress events.
        checkpoint: Where to save after each epoch, if anywhere.
    """

    mirror: Mirror
    guide: Guide
    teacher: Teacher
    validation_teacher: Teacher
    train: Samples
    validation: Samples
    loss: LossFunction
    classes: ClassOutput | None
    config: Config
    emit: Callable[[Event], None]
    checkpoint: Checkpoint | None = None
    best: Best = field(default_factory=Best)

    def __post_init__(self) -> None:
        self._steps_per_epoch = self.train.batch_count(self.config.batch_size)
        self._total = self._steps_per_epoch * self.config.epochs
        self._guided = guided_steps(self.train, self.config)
        self._optimizer, self._peaks = make_optimizer(self.mirror, self.config)
        self._step = 0
        self._epochs = 0
        self._loss_sum = 0.0  # of the steps made in this epoch
        self._settled = False

    def run(self, resume: bool = False) -> Outcome:
        """Learns; leaves the best feasible state in the mirror.

        Ctrl-C and the time limit end it early, with the best feasible state so far: never nothing.
        """
        if resume and self.checkpoint is not None:
            self._restore(self.checkpoint.load())
        self._started = time.monotonic()
        reason = "complete"
        try:
            for epoch in range(self._epochs, self.config.epochs):
                self._epoch(epoch)
        except KeyboardInterrupt:
            reason = "interrupted"
        except _TimeIsUpError:
            reason = "time limit"
        if reason != "complete":
            self._save()
        if reason != "complete" or self.best.state is None:
            if not self._settled:
                self._settle()
            self._consider(min(self._epochs + 1, self.config.epochs), *self.evaluate())
        assert self.best.state is not None
        self.mirror.load_state_dict(self.best.state)
        self.guide.release()
        return Outcome(
            complete=reason == "complete",
            reason=reason,
            epochs=round(self._step / self._steps_per_epoch, 3),
            best_epoch=self.best.epoch,
            validation_loss=self.best.loss,
            validation_accuracy=self.best.accuracy,
        )

    # -- one epoch ------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> None:
        began = time.monotonic()
        self.mirror.train()
        for batch in self._batches(epoch):
            if not self._settled and self._step >= self._guided:
                self._settle()
            self._train_step(batch)
            limit = self.config.time_limit
            if limit is not None and time.monotonic() - self._started > limit:
                raise _TimeIsUpError
        loss, accuracy = self.evaluate()
        self._consider(epoch + 1, loss, accuracy)
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
                cost=self.guide.cost,
                limit=self.guide.bound.limit,
                feasible=self.guide.satisfied,
                mean_bits_weights=self._mean_bits(Role.WEIGHT),
                mean_bits_activations=self._mean_bits(Role.ACTIVATION),
                seconds=time.monotonic() - began,
            )
        )
        self._save()

    def _batches(self, epoch: int) -> Iterator[Batch]:
        # The order depends on seed and epoch alone, so that a resumed run sees the same batches.
        order = self.train.shuffled((self.config.seed, epoch))
        size = self.train.fixed_batch or self.config.batch_size
        # A run that stopped in the middle of an epoch has seen some of them.
        done = (self._step - epoch * self._steps_per_epoch) * size
        return self.train.batches(size, order=order[done:])

    def _train_step(self, batch: Batch) -> None:
        self._set_learning_rates()
        self._optimizer.zero_grad(set_to_none=True)
        labels = None if batch.labels is None else torch.from_numpy(batch.labels)
        outputs = self.mirror(tensors(batch.inputs))
        loss = self.loss(outputs, labels, self.teacher.outputs(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if not self._settled:
            self.guide.step()
        self._step += 1
        value = float(loss.detach())
        self._loss_sum += value
        self.emit(
            StepDone(
                step=self._step,
                total_steps=self._total,
                phase=self._phase,
                loss=value,
                cost_ratio=self.guide.cost / max(1, self.guide.bound.limit),
            )
        )

    def _set_learning_rates(self) -> None:
        warm_up = min(1.0, (self._step + 1) / max(1.0, _WARM_UP_SHARE * self._total))
        after = max(0, self._step - self._guided) / max(1, self._total - self._guided)
        factor = warm_up * 0.5 * (1 + math.cos(math.pi * min(1.0, after)))
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    @property
    def _phase(self) -> str:
        return "settled" if self._settled else "guided"

    def _settle(self) -> None:
        self.guide.settle(self.config.integer_kernels)
        self._settled = True

    def _mean_bits(self, role: Role) -> float:
        bits, count = 0.0, 0
        for quantizer in self.mirror.quantizers.values():
            if quantizer.spec.role is role:
                size = math.prod(quantizer.spec.shape)
                bits += float(np.broadcast_to(quantizer.widths, quantizer.spec.shape).sum())
                count += size
        return bits / max(1, count)

    # -- held-out data --------------------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        """Training steps of the whole run."""
        return self._total

    def teacher_accuracy(self) -> float | None:
        """Accuracy of the float model on held-out data, if there are labels and class scores."""
        if self.classes is None or not self.validation.has_labels:
            return None
        correct = 0
        for batch in self._held_out():
            outputs = _counted(self.validation_teacher.outputs(batch), batch)
            correct += _correct(self.classes, outputs, _labels(batch))
        return correct / len(self.validation)

    def _held_out(self) -> Iterator[Batch]:
        return self.validation.batches(max(256, self.config.batch_size))

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float | None]:
        """Loss and accuracy (with labels) on held-out data."""
        self.mirror.eval()
        total, correct, count = 0.0, 0, 0
        for batch in self._held_out():
            outputs = _counted(self.mirror(tensors(batch.inputs)), batch)
            teacher = _counted(self.validation_teacher.outputs(batch), batch)
            labels = _labels(batch)
            total += float(self.loss(outputs, labels, teacher)) * batch.size
            correct += _correct(self.classes, outputs, labels)
            count += batch.size
        self.mirror.train()
        has_accuracy = self.classes is not None and self.validation.has_labels
        return total / count, correct / count if has_accuracy else None

    def _consider(self, epoch: int, loss: float, accuracy: float | None) -> None:
        """Keeps the state if it is settled, within the bound, and the best so far."""
        feasible = self._settled and self.guide.satisfied
        if feasible and (loss < self.best.loss or self.best.state is None):
            state = {key: value.detach().clone() for key, value in self.mirror.state_dict().items()}
            self.best = Best(loss, accuracy, epoch, state)

    # -- checkpoints ----------------------------------------------------------------------------

    def _save(self) -> None:
        if self.checkpoint is not None:
            self.checkpoint.save(self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "epochs": self._epochs,
            "loss_sum": self._loss_sum,
            "settled": self._settled,
            "mirror": self.mirror.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "guide": self.guide.state_dict(),
            "best": vars(self.best),
        }

    def _restore(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        self._step, self._epochs = state["step"], state["epochs"]
        self._loss_sum, self._settled = state["loss_sum"], state["settled"]
        self.mirror.load_state_dict(state["mirror"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.guide.load_state_dict(state["guide"])
        self.best = Best(**state["best"])
        if self._settled:
            self.guide.release()


def guided_steps(samples: Samples, config: Config) -> int:
    """Number of training steps in which gates move."""
    return max(1, int(GUIDE_SHARE * samples.batch_count(config.batch_size) * config.epochs))


def make_optimizer(mirror: Mirror, config: Config) -> tuple[torch.optim.Optimizer, list[float]]:
    """Adam for weights, biases and ranges.

    Adam, since graphs arrive with normalisation folded away and diverge under momentum SGD. Only
    tensors with a quantizer learn: other constants of a graph (epsilons, masks) are not weights.

    Returns:
        The optimizer, and the peak learning rate of each of its groups.
    """
    weights, ranges = [], []
    for name, parameter in mirror.value_parameters.items():
        parameter.requires_grad_(name in mirror.quantizers)
        if name in mirror.quantizers:
            weights.append(parameter)
    for quantizer in mirror.quantizers.values():
        ranges += list(quantizer.parameters())
    rate = config.learning_rate or default_learning_rate(mirror)
    groups = [{"params": weights}, {"params": ranges}]
    return torch.optim.Adam(groups, lr=rate, fused=True), [rate, config.range_learning_rate]


def default_learning_rate(mirror: Mirror) -> float:
    """Peak learning rate of weights: 8e-3 over the number of weight tensors, at most 2e-3.

    Adam moves every weight by about the learning rate, whatever its gradient, so what one step does
    to the output adds up over the layers. Measured: 2e-3 is best for LeNet-5 (4 weights) and ruins
    a ResNet-20 with folded normalisation (22 weights) within an epoch, which trains well at 3e-4.
    """
    roles = [quantizer.spec.role for quantizer in mirror.quantizers.values()]
    return min(2e-3, 8e-3 / max(1, roles.count(Role.WEIGHT)))


def _labels(batch: Batch) -> Tensor | None:
    return None if batch.labels is None else torch.from_numpy(batch.labels[: batch.size])


def _counted(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Outputs without the entries that only fill up a batch size which the model fixes."""
    rows = len(batch.indices)
    if rows == batch.size:
        return dict(outputs)
    return {n: v[: batch.size] if v.dim() and len(v) == rows else v for n, v in outputs.items()}


def _correct(
    classes: ClassOutput | None,
    outputs: Mapping[str, Tensor],
    labels: Tensor | None,
) -> int:
    """Number of right classes."""
    if classes is None or labels is None:
        return 0
    return int((outputs[classes.name].argmax(dim=1) == labels).sum())
