"""What learning started from: calibrated, but untrained."""

from __future__ import annotations

from typing import Any

from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.mirror.module import Mirror


class Start:
    """The weights and ranges that learning started from.

    With few samples training may do more harm to a network than quantization does; then this is
    where to go back to, with the widths that were learned.
    """

    def __init__(self, mirror: Mirror) -> None:
        """Copies the state of a calibrated mirror."""
        self._state = snapshot(mirror)

    def put_back(self, mirror: Mirror, guide: Guide) -> None:
        """Gives the mirror its first weights and ranges again, and keeps its widths."""
        widths = guide.widths
        mirror.load_state_dict(self._state)
        guide.set_widths(widths)


def snapshot(mirror: Mirror) -> dict[str, Any]:
    """A copy of a mirror's state, for ``load_state_dict``."""
    return {key: value.detach().clone() for key, value in mirror.state_dict().items()}
