"""The stages before training end to end, which can go on where they were stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn.allocate import allocate
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loss_function import LossFunction
from onnx_cgmq.learn.measured_losses import BatchLosses
from onnx_cgmq.learn.reconstruct import Begun, reconstruct
from onnx_cgmq.learn.schedule import Stages
from onnx_cgmq.learn.snapshot import Best, snapshot
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.settings.config import Config


class StageWork:
    """Runs the stages of a run, and knows how far they have come."""

    def __init__(
        self,
        guide: Guide,
        train: Samples,
        teacher: Teacher,
        loss: LossFunction,
        config: Config,
        show: Callable[[str, int, int], None],
    ) -> None:
        """Prepares the stages.

        Args:
            guide: The guide of the mirror.
            train: The training data.
            teacher: The float model's outputs on these.
            loss: The loss.
            config: The settings of the run.
            show: Is called with the name of a stage, what is done of it, and all that there is to
                do. The state can be saved then.
        """
        self._guide, self._train, self._teacher = guide, train, teacher
        self._loss, self._config, self._show = loss, config, show
        self._known: BatchLosses = {}
        self._parts = 0  # that have learned
        self._generator = torch.empty(0, dtype=torch.uint8)  # torch's state after these

    def allocate(self, stages: Stages) -> None:
        """Moves the gates by measured losses, and settles them within the bounds."""
        allocate(
            self._guide,
            self._train,
            self._teacher,
            self._loss,
            stages,
            self._config.integer_kernels,
            known=self._known,
            progress=lambda done, total: self._show("allocate", done, total),
        )

    def reconstruct(self, stages: Stages, start: Best) -> None:
        """Reconstructs the mirror part by part.

        Args:
            stages: How long each part learns.
            start: The state that this starts from. Where it goes on, the mirror is in the state in
                which it was stopped.
        """
        mirror, begun = self._guide.mirror, None
        if self._parts:
            begun = Begun(self._parts, self._generator, snapshot(mirror))
        start.restore(mirror)

        def show(parts: int, total: int) -> None:
            self._parts, self._generator = parts, torch.get_rng_state()
            self._show("reconstruct", parts, total)

        seed = self._config.seed
        reconstruct(
            mirror,
            self._train.drawn(stages.stored_samples, seed),
            steps=stages.reconstruction_steps,
            batch_size=stages.batch_size,
            seed=seed,
            begun=begun,
            progress=show,
        )

    def state_dict(self) -> dict[str, Any]:
        """How far the stages have come, for :meth:`load_state_dict`."""
        return {"losses": self._known, "parts": self._parts, "generator": self._generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._known = state["losses"]
        self._parts, self._generator = state["parts"], state["generator"]
