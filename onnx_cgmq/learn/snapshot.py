"""Copies of a mirror's state, to go back to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.mirror.module import Mirror


@dataclass
class Best:
    """The best state on held-out data so far, of those with settled widths that keep the bound.

    Attributes:
        loss: Its loss on held-out data.
        accuracy: Its accuracy on held-out data, if there are labels.
        epoch: The epoch in which it was reached; 0 stands for the untrained weights.
        state: The mirror's state, or ``None`` if there is no such state yet.
    """

    loss: float = math.inf
    accuracy: float | None = None
    epoch: int = 0
    state: dict[str, Any] | None = None

    def restore(self, mirror: Mirror) -> None:
        """Restores the state, which there must be."""
        assert self.state is not None
        mirror.load_state_dict(self.state)


class UntrainedState:
    """The weights, biases and ranges from which learning started: calibrated, but untrained.

    With few samples, training may do more harm to a network than quantization does. Then the
    mirror goes back to this state, but keeps the widths that it learned.
    """

    def __init__(self, mirror: Mirror) -> None:
        """Copies the state of a calibrated mirror."""
        self._state = snapshot(mirror)

    def restore(self, mirror: Mirror, guide: Guide) -> None:
        """Restores the untrained weights, biases and ranges of a mirror, and keeps its widths."""
        widths = guide.widths
        mirror.load_state_dict(self._state)
        guide.set_widths(widths)


def snapshot(mirror: Mirror) -> dict[str, Any]:
    """Returns a copy of a mirror's state, for ``load_state_dict``."""
    return {key: value.detach().clone() for key, value in mirror.state_dict().items()}
