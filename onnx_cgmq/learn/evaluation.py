"""Measures how good a state of the mirror is on held-out data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnx_cgmq.data.source import Batch, Samples
from onnx_cgmq.learn import processes
from onnx_cgmq.learn.batches import answers, joined, tensors
from onnx_cgmq.learn.loss_function import LossFunction
from onnx_cgmq.learn.losses import ClassOutput
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror


@dataclass(frozen=True)
class Evaluator:
    """Measures loss and accuracy on held-out data.

    Attributes:
        samples: The held-out samples.
        teacher: The float model's outputs on these samples.
        loss: The loss that training uses.
        classes: The output with class scores, if there is one.
        batch_size: The most samples for which the loss is computed at once.
        micro_batch: The most samples that the mirror computes at once; ``None`` for any number.
    """

    samples: Samples
    teacher: Teacher
    loss: LossFunction
    classes: ClassOutput | None
    batch_size: int
    micro_batch: int | None = None

    @torch.no_grad()
    def evaluate(self, mirror: Mirror) -> tuple[float, float | None]:
        """Returns the mean loss, and the accuracy if there are labels and class scores."""

        def judged(batch: Batch) -> tuple[float, int, int]:
            outputs = _without_padding(self._outputs(mirror, batch), batch)
            wanted = answers(batch, batch.size, mirror.device)
            loss = self.loss(outputs, wanted, _without_padding(self.teacher.outputs(batch), batch))
            return float(loss) * batch.size, self._correct(outputs, batch), batch.size

        mirror.eval()
        losses, correct, sizes = zip(*processes.in_turns(self._batches(), judged), strict=True)
        mirror.train()
        count = sum(sizes)
        return sum(losses) / count, sum(correct) / count if self._has_accuracy else None

    def _outputs(self, mirror: Mirror, batch: Batch) -> dict[str, Tensor]:
        def run(part: Batch) -> dict[str, Tensor]:
            return mirror.run(tensors(part.inputs), self.teacher.names)

        return joined(run, batch.split(self.micro_batch))

    def teacher_accuracy(self) -> float | None:
        """Returns the accuracy of the float model, if there are labels and class scores."""
        if not self._has_accuracy:
            return None

        def correct(batch: Batch) -> int:
            return self._correct(_without_padding(self.teacher.outputs(batch), batch), batch)

        return sum(processes.in_turns(self._batches(), correct)) / len(self.samples)

    @property
    def _has_accuracy(self) -> bool:
        return self.classes is not None and self.samples.has_labels

    def _batches(self) -> Iterator[Batch]:
        return self.samples.batches(self.samples.at_once(self.batch_size))

    def _correct(self, outputs: Mapping[str, Tensor], batch: Batch) -> int:
        """Returns how many samples are classified right."""
        if self.classes is None or batch.labels is None:
            return 0
        found = outputs[self.classes.name].argmax(dim=1)
        return int((found.cpu() == torch.from_numpy(batch.labels[: batch.size])).sum())


def _without_padding(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Returns outputs without padding samples, as ``ort/session.py`` does for arrays."""
    rows = len(batch.indices)
    if rows == batch.size:
        return dict(outputs)
    return {n: v[: batch.size] if v.dim() and len(v) == rows else v for n, v in outputs.items()}
