"""A calibrated mirror with all that the stages of a run need, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from onnx_cgmq.data.source import Samples, open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.evaluation import Evaluator
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loop import Learner
from onnx_cgmq.learn.loss_function import LossFunction
from onnx_cgmq.learn.losses import make_loss
from onnx_cgmq.learn.schedule import MOVES, Schedule, Stages
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config

STAGES = Stages(measured_samples=32, reconstruction_steps=30, batch_size=16)


@dataclass
class Job:
    """What the stages of a run work with.

    Attributes:
        config: The settings.
        mirror: The calibrated mirror.
        float_mirror: The mirror of the float model.
        train: The samples to learn from.
        held_out: Other samples.
        teacher: The float model's outputs on the samples to learn from.
        loss: The loss.
    """

    config: Config
    mirror: Mirror
    float_mirror: Mirror
    train: Samples
    held_out: Samples
    teacher: Teacher
    loss: LossFunction

    def guide(self, bound: str | Sequence[str] = "5%") -> Guide:
        return Guide(self.mirror, bound, target=self.config.target, steps=MOVES, interval=1)

    def evaluator(self) -> Evaluator:
        taught = Teacher(self.float_mirror, len(self.held_out))
        return Evaluator(self.held_out, taught, self.loss, None, self.config.batch_size)

    def learner(self, bound: str = "5%", stages: Stages = STAGES, emit=None) -> Learner:
        return Learner(
            self.guide(bound),
            self.train,
            self.teacher,
            self.loss,
            self.evaluator(),
            self.config,
            emit or (lambda event: None),
            schedule=Schedule(stages, epochs=0),
        )

    @torch.no_grad()
    def error(self, samples: Samples | None = None) -> float:
        """The squared error of the outputs relative to the float model's mean square."""
        samples = samples or self.held_out
        inputs = tensors(samples.batch(np.arange(len(samples))).inputs)
        found, wanted = self.mirror(inputs), self.float_mirror(inputs)
        wrong = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
        return wrong / sum(float(value.square().sum()) for value in wanted.values())


def correlated(model: onnx.ModelProto, count: int, seed: int) -> dict[str, np.ndarray]:
    """Samples whose elements depend on a few factors, as those of images and sounds do.

    Learned rounding lives on that: where inputs are white noise, the nearest code is the best one.
    """
    rng, arrays = np.random.default_rng(seed), {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        mixed = np.random.default_rng(99).normal(0, 0.5, (4, int(np.prod(shape))))
        x = rng.normal(0, 1, (count, 4)) @ mixed + rng.normal(0, 0.05, (count, mixed.shape[1]))
        arrays[value.name] = x.reshape(count, *shape).astype(np.float32)
    return arrays


def job(model: onnx.ModelProto, count: int = 192, **settings) -> Job:
    """Calibrates a toy model on samples without labels, by default with all widths."""
    config = Config.create(**{"batch_size": 32, "target": "generic", **settings})
    float_model = prepare(model)
    train, held_out = (open_data(correlated(model, count, seed), float_model) for seed in (0, 1))
    mirror, float_mirror = Mirror(insert_gates(float_model, config)), Mirror(float_model)
    calibrate(mirror, train)
    taught = Teacher(float_mirror, len(train))
    loss = make_loss(config.loss, None, has_labels=False, outputs=taught.names)
    return Job(config, mirror, float_mirror, train, held_out, taught, loss)
