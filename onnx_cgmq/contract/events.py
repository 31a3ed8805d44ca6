"""The events of a run, for progress displays and ``--log``."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from onnx_cgmq.errors import OutputError


@dataclass(frozen=True)
class Event:
    """Something that happened in a run."""

    kind: ClassVar[str] = "event"

    def to_record(self) -> dict[str, Any]:
        """The fields as JSON values, with the kind under ``event``.

        NaN and infinity, which JSON does not have, become ``None``.
        """
        record: dict[str, Any] = {"event": self.kind}
        for name, value in asdict(self).items():
            unwritable = isinstance(value, float) and not math.isfinite(value)
            record[name] = None if unwritable else value
        return record


@dataclass(frozen=True)
class Limit:
    """A bound of a run.

    Attributes:
        bound: The bound as the user gave it.
        limit: The largest cost that the bound allows.
        unit: The unit of the limit.
    """

    bound: str
    limit: int | float
    unit: str


@dataclass(frozen=True)
class Started(Event):
    """Training is about to start.

    Attributes:
        total_steps: Number of training steps of the whole run.
        epochs: Number of epochs of the whole run.
        float_accuracy: Share of held-out samples that the float model classifies right, or ``None``
            without labels.
        bounds: The bounds.
        expected_seconds: About how long learning will take, as estimated from the time of a run on
            a few samples; ``None`` if gates move while weights train, where epochs show it soon.
    """

    kind: ClassVar[str] = "started"

    total_steps: int
    epochs: int
    float_accuracy: float | None
    bounds: tuple[Limit, ...]
    expected_seconds: float | None = None


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage of a run begins; it ends when the next one begins, or the run.

    Attributes:
        stage: What is done, in a word or two: ``prepare``, ``equalize``, ``calibrate``, ``learn``,
            ``verify`` and others.
    """

    kind: ClassVar[str] = "begins"

    stage: str


@dataclass(frozen=True)
class StageProgress(Event):
    """A part of a stage before training end to end is done.

    Attributes:
        stage: ``allocate`` (losses are measured) or ``reconstruct``.
        done: Number of tensors or parts of the network done.
        total: Number of all of them.
    """

    kind: ClassVar[str] = "progress"

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class StageDone(Event):
    """A stage before training end to end ended, and the model was run on held-out data.

    Attributes:
        stage: ``calibrated`` (ranges are fitted and widths chosen) or ``reconstructed``.
        validation_loss: Loss on held-out data.
        validation_accuracy: Accuracy on held-out data, or ``None`` without labels.
        seconds: Wall time of the stage.
    """

    kind: ClassVar[str] = "stage"

    stage: str
    validation_loss: float
    validation_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class StepDone(Event):
    """A training step was made.

    Attributes:
        step: Number of training steps made so far.
        total_steps: Number of training steps of the whole run.
        phase: ``guided`` while gates move, ``settled`` once the widths are fixed.
        loss: Loss of the step's batch.
        cost_ratio: Cost divided by limit. With several bounds, the largest of these ratios: it is
            at most 1 when all bounds are kept.
    """

    kind: ClassVar[str] = "step"

    step: int
    total_steps: int
    phase: str
    loss: float
    cost_ratio: float


@dataclass(frozen=True)
class EpochDone(Event):
    """An epoch ended, and the model was run on held-out data.

    Attributes:
        epoch: Number of epochs made so far.
        phase: ``guided`` while gates move, ``settled`` once the widths are fixed.
        loss: Mean training loss of the epoch.
        validation_loss: Loss on held-out data.
        validation_accuracy: Accuracy on held-out data, or ``None`` without labels.
        rbop: Bit operations as a share of the float model's.
        costs: The present cost for each bound, in the bound's unit.
        limits: The limit of each bound, in the same unit.
        feasible: Whether all bounds are kept.
        mean_bits_weights: Mean width over all weights.
        mean_bits_activations: Mean width over all activations.
        seconds: Wall time of the epoch.
    """

    kind: ClassVar[str] = "epoch"

    epoch: int
    phase: str
    loss: float
    validation_loss: float
    validation_accuracy: float | None
    rbop: float
    costs: tuple[int | float, ...]
    limits: tuple[int | float, ...]
    feasible: bool
    mean_bits_weights: float
    mean_bits_activations: float
    seconds: float


@dataclass(frozen=True)
class PointDone(Event):
    """A point of a curve is learned and judged.

    Attributes:
        bound: The bound that the point keeps.
        share: Its cost as a share of the float model's.
        text: How good it is, in words.
        seconds: How long it took.
    """

    kind: ClassVar[str] = "point"

    bound: str
    share: float | None
    text: str
    seconds: float


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know, though the run goes on.

    Attributes:
        message: A note: one sentence for the user.
    """

    kind: ClassVar[str] = "notice"

    message: str


@dataclass(frozen=True)
class Finished(Event):
    """The run ended, and its model is verified (and written, if the run has an output).

    Attributes:
        complete: Whether the run went to its planned end.
        reason: Why it ended: ``complete``, ``interrupted``, ``terminated``, ``hung up``, ``time
            limit``, ``diverged`` or ``loss not finite``.
    """

    kind: ClassVar[str] = "finished"

    complete: bool
    reason: str


class MetricsLog:
    """Writes events to a file as they come: one JSON document per line.

    Of the training steps it writes at most one per :attr:`seconds_between_steps`. Each line has the
    Unix time under ``time``. Every line is written before the next event is taken.

    Args:
        path: The file.
        append: Add to the lines in the file (for a resumed run); otherwise the file starts empty.

    Raises:
        OutputError: The file can't be written.
    """

    seconds_between_steps = 1.0

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self._path = Path(path)
        self._last_step = -math.inf
        try:
            with self._path.open("a" if append else "w", encoding="utf-8"):
                pass
        except OSError as error:
            raise self._error(error) from error

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            now = time.monotonic()
            if now - self._last_step < self.seconds_between_steps:
                return
            self._last_step = now
        line = json.dumps({**event.to_record(), "time": round(time.time(), 3)})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"can't write the log {self._path}: {error.strerror or error}")
