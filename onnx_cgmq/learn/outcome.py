"""How learning ended."""

from __future__ import annotations

from dataclasses import dataclass

NOT_FINITE = "loss not finite"
"""Why a run ends that found no state with a finite loss on held-out data."""


@dataclass(frozen=True)
class Outcome:
    """How learning ended.

    Attributes:
        complete: Whether all of the run was done, and the loss on held-out data is finite.
        reason: ``"complete"``, ``"interrupted"``, ``"time limit"``, ``"diverged"``, or ``"loss not
            finite"`` if no state has a finite loss on held-out data; after a signal to the command
            line also ``"terminated"`` or ``"hung up"``.
        epochs: Number of epochs that were run, with a fraction for the last one.
        best_epoch: The epoch of the state that was kept; 0 is a state before the first.
        validation_loss: The loss of that state on held-out data.
        validation_accuracy: The accuracy of that state on held-out data, if there are labels.
    """

    complete: bool
    reason: str
    epochs: float
    best_epoch: int
    validation_loss: float
    validation_accuracy: float | None
