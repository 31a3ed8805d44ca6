"""What ends a run early, besides ``KeyboardInterrupt``."""

from __future__ import annotations

from typing import Final

PROCESS_ENDED: Final = "a process ended"
"""Why a run ends of which another process has ended (``torchrun``)."""


class Stopped(BaseException):
    """Ends a run as ``KeyboardInterrupt`` does: with the best model so far.

    The command line raises it on signals, and learning itself at the time limit and when no step
    changes anything any more. It is no error, since there is a model to write.

    Attributes:
        reason: Why the run ends: ``"terminated"``, ``"hung up"``, ``"a process ended"``,
            ``"time limit"`` or ``"diverged"``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
