"""What a run tells while it goes on, for progress displays and ``--log``."""

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
        """Fields as JSON values, the kind under ``event``; NaN and infinity become ``None``."""
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
        limit: Largest cost allowed.
        unit: Its unit.
    """

    bound: str
    limit: int | float
    unit: str


@dataclass(frozen=True)
class Started(Event):
    """Training is about to start.

    Attributes:
        total_steps: Training steps of the whole run.
        epochs: Epochs of the whole run.
        float_accuracy: Share of held-out samples that the float model classifies right, or ``None``
            without labels.
        bounds: The bounds.
    """

    kind: ClassVar[str] = "started"

    total_steps: int
    epochs: int
    float_accuracy: float | None
    bounds: tuple[Limit, ...]


@dataclass(frozen=True)
class StepDone(Event):
    """A training step was made.

    Attributes:
        step: Steps made so far.
        total_steps: Training steps of the whole run.
        phase: What the run is doing, such as ``guided`` or ``settled``.
        loss: Loss of the step's batch.
        cost_ratio: Cost over limit, of several bounds the largest: at most 1 when all are kept.
    """

    kind: ClassVar[str] = "step"

    step: int
    total_steps: int
    phase: str
    loss: float
    cost_ratio: float


@dataclass(frozen=True)
class EpochDone(Event):
    """An epoch ended and the model was tried on held-out data.

    Attributes:
        epoch: Epochs made so far.
        phase: What the run is doing.
        loss: Mean training loss of the epoch.
        validation_loss: Loss on held-out data.
        validation_accuracy: Accuracy on held-out data, or ``None`` without labels.
        rbop: Bit operations as a share of the float model's.
        costs: What each bound counts, in its unit.
        limits: The bounds in the same units.
        feasible: Whether no cost is above its limit.
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
class Notice(Event):
    """Something the user should know, though the run goes on.

    Attributes:
        message: What it is, in a sentence.
    """

    kind: ClassVar[str] = "notice"

    message: str


@dataclass(frozen=True)
class Finished(Event):
    """The run ended and its model is verified (and written, if it has an output).

    Attributes:
        complete: Whether it went to its planned end.
        reason: ``complete``, ``interrupted``, ``time limit`` or ``diverged``.
    """

    kind: ClassVar[str] = "finished"

    complete: bool
    reason: str


class MetricsLog:
    """Writes events to a file as they come: one JSON document for each line.

    Training steps are thinned: at most one in :attr:`seconds_between_steps`. Each line has the Unix
    time under ``time``. Every line is on disk before the next event is taken.

    Args:
        path: The file.
        append: Keep what the file has (a resumed run); otherwise it starts empty.

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
