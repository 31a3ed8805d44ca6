"""Decides what a run does, and for how long: from the settings, the data and the model's cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from onnx_cgmq.contract.bits import Granularity
from onnx_cgmq.cost.bops import total_macs
from onnx_cgmq.cost.macs import mac_ops
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.settings.config import Config, Direction, Effort

EPOCHS: Final = 12
"""Epochs of a run that trains on many labelled samples. Our choice."""

GUIDED_SHARE: Final = 0.25
"""Share of the training steps in which gates move, where they move while weights train. In the
others widths are fixed, and weights, biases and ranges go on learning. Our choice."""

PACE: Final = 0.5
"""Factor of the learning rates on many samples, after the stages. Our choice: on ResNet-20, 3
epochs at this pace are better than the stages alone, and 6 of 8 at twice this pace are not."""

CAREFUL_PACE: Final = 0.1
"""Factor of the learning rates where training may do harm: after it has done some, and on few
samples. Our choice."""

_MANY: Final = 5000
"""So many samples bear training end to end at a good pace; with labels, that is the main part of a
run. Our choice."""

RECONSTRUCTION_SAMPLES: Final = 2048
"""The most samples that parts are reconstructed on, because the values that go into a part and come
out of it are stored. Our choice: more steps than samples are hardly ever affordable."""

_BATCHES_STORED: Final = 16
"""The fewest batches that parts are reconstructed on, however few the steps. Our choice: by some of
them the best state is chosen."""

_SECONDS: Final = {Effort.FAST: 45.0, Effort.NORMAL: 300.0, Effort.BEST: 1500.0}
"""About how long reconstruction may take. Our choice."""

_OPERATIONS_PER_SECOND: Final = 4e9
"""Multiply-accumulates that a core makes in a second, forwards and backwards: a cautious figure of
ours for networks whose kernels are small. It is no measurement, so that a run is repeatable."""

_SECONDS_PER_NODE: Final = 1e-4
"""What a node costs in a training step, however small it is. Ours, as the figure above."""

_SECONDS_PER_BYTE: Final = 1e-8
"""What a byte of a quantized activation costs a core in a training step: memory is the bottleneck
of large activations. Ours, as the figures above."""

STEPS: Final = {Effort.FAST: (8, 60), Effort.NORMAL: (40, 300), Effort.BEST: (100, 1000)}
"""The fewest and the most training steps of a part. Our choice: rounding needs some hundred."""

_MEASURED_SECONDS: Final = {Effort.FAST: 20.0, Effort.NORMAL: 120.0, Effort.BEST: 300.0}
"""About how long measuring losses may take. Our choice."""

_FEWEST_MEASURED, _MOST_MEASURED = 8, 256
"""The fewest and the most samples on which losses are measured. Our choice: on ResNet-20, plans by
48 samples differ by 3 dB, and plans by 256 do not."""

_MEASURED_PER_SECOND: Final = 2e10
"""Multiply-accumulates that a core makes in a second without gradients. Ours, as the figures for
training steps."""

_BATCH, _SMALLEST_BATCH = 16, 4
"""The most samples in a training step of a part, and the fewest if activations are large. Our
choice."""

_BATCH_BYTES: Final = 1 << 28
"""About how many bytes the activations of these samples may take. Our choice, for memory."""

_RUNS_PER_STEP, _RUNS_PER_SEARCH = 5, 20
"""How many runs without gradients take as long as a training step, and as the search for ranges.
Ours, from a few networks."""

_MEASURED_SHARE: Final = 0.5
"""Share of a network that runs behind a tensor, on average."""

MOVES: Final = 200
"""How often gates move by measured losses, which cost nothing to move by. Our choice."""


@dataclass(frozen=True)
class Stages:
    """What a run does before (or instead of) training end to end.

    Attributes:
        measured_samples: Samples on which the loss of every tensor at every width is measured.
        reconstruction_steps: Training steps for each part of the network; 0 leaves this out.
        batch_size: Samples in such a step.
    """

    measured_samples: int
    reconstruction_steps: int
    batch_size: int

    @property
    def stored_samples(self) -> int:
        """The most samples of which values are stored for reconstruction: no more than it uses."""
        used = max(self.reconstruction_steps, _BATCHES_STORED) * self.batch_size
        return min(RECONSTRUCTION_SAMPLES, used)

    def expected_seconds(self, forward: float, samples: int, passes: int) -> float:
        """About how long the stages take.

        Args:
            forward: Seconds that a run of one sample takes, without gradients.
            samples: Number of training samples.
            passes: How many runs on the measured samples the allocation takes; 0 without one.
        """
        measured = passes * _MEASURED_SHARE * self.measured_samples
        if not self.reconstruction_steps:
            return forward * measured
        steps = self.reconstruction_steps * _RUNS_PER_STEP + _RUNS_PER_SEARCH
        stored = 2 * min(samples, self.stored_samples)
        return forward * (measured + steps * self.batch_size + stored)


@dataclass(frozen=True)
class Schedule:
    """What a run does.

    Attributes:
        stages: The stages before training end to end; ``None`` if gates move while weights train.
        epochs: Passes over the data in training end to end.
        pace: Factor of the learning rates in these.
    """

    stages: Stages | None
    epochs: int
    pace: float = 1.0

    def expected_seconds(self, forward: float, samples: int, passes: int) -> float | None:
        """About how long learning takes, as for the stages; ``None`` if gates move meanwhile."""
        if self.stages is None:
            return None
        trained = self.epochs * samples * _RUNS_PER_STEP * forward
        return self.stages.expected_seconds(forward, samples, passes) + trained

    def guided_steps(self, train: Samples, batch_size: int) -> int:
        """The number of training steps in which gates move together with the weights."""
        if self.stages is not None:
            return 0
        return max(1, int(GUIDED_SHARE * train.batch_count(batch_size) * self.epochs))

    def moves(self, train: Samples, batch_size: int) -> int:
        """The number of steps in which gates move, with the weights or before them."""
        return MOVES if self.stages is not None else self.guided_steps(train, batch_size)


def choose_schedule(
    config: Config, train: Samples, mirror: Mirror, activation_bytes: int
) -> Schedule:
    """Chooses what a run does.

    It goes in stages, and then trains end to end for the epochs that the settings give, or if there
    are many labelled samples; on few samples with care, unless the settings give a learning rate.
    Gates move while weights train, as in the paper, where losses can't be measured: with several
    gates for a tensor, or by another direction than ``fisher``.

    Args:
        config: The settings; a time limit takes the place of the time that the effort allows.
        train: The training samples.
        mirror: The mirror of the gated model.
        activation_bytes: Bytes of the activations that are quantized, for one sample.
    """
    specs = [quantizer.spec for quantizer in mirror.quantizers.values()]
    one_gate_each = all(spec.granularity is Granularity.TENSOR for spec in specs)
    if not one_gate_each or config.direction is not Direction.FISHER:
        return Schedule(None, config.epochs or EPOCHS)
    many = len(train) >= _MANY
    labelled = train.has_labels or bool(next(train.batches(1)).targets)
    trains = many and labelled and config.effort is not Effort.FAST
    return Schedule(
        _stages(config, train, mirror, activation_bytes),
        epochs=config.epochs or (EPOCHS if trains else 0),
        pace=_pace(config, many),
    )


def _pace(config: Config, many: bool) -> float:
    """The factor of the learning rates after the stages; none for a rate that was asked for."""
    if config.learning_rate is not None:
        return 1.0
    return PACE if many else CAREFUL_PACE


def _stages(config: Config, train: Samples, mirror: Mirror, activation_bytes: int) -> Stages:
    """Chooses the stages' lengths from the model's cost, so that a run takes about its time."""
    fits = max(_SMALLEST_BATCH, _BATCH_BYTES // activation_bytes)
    batch = max(1, min(_BATCH, fits, config.batch_size, len(train) // 2))
    macs = max(1, total_macs(mac_ops(mirror.model)))
    cores = max(1, torch.get_num_threads())
    forward = macs / (_OPERATIONS_PER_SECOND * cores)
    sample = 3 * forward + _SECONDS_PER_BYTE * activation_bytes / cores
    step = sample * batch + _SECONDS_PER_NODE * len(mirror.model.graph)
    seconds = _SECONDS[config.effort]
    if config.time_limit is not None:
        seconds = min(seconds, config.time_limit / 2)
    fewest, most = STEPS[config.effort]
    passes = sum(len(q.spec.ladder.quantized) for q in mirror.quantizers.values())
    node = _SECONDS_PER_NODE / _RUNS_PER_STEP
    run = macs / (_MEASURED_PER_SECOND * cores) + node * len(mirror.model.graph) / batch
    measuring = _MEASURED_SECONDS[config.effort]
    if config.time_limit is not None:
        measuring = min(measuring, config.time_limit / 4)
    affordable = int(measuring / (passes * _MEASURED_SHARE * run))
    return Stages(
        measured_samples=min(max(_FEWEST_MEASURED, min(_MOST_MEASURED, affordable)), len(train)),
        reconstruction_steps=max(fewest, min(most, int(seconds / step))),
        batch_size=batch,
    )
