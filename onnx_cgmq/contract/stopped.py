"""What ends a run at the wish of the user, besides ``KeyboardInterrupt``."""

from __future__ import annotations

from typing import Final

PROCESS_ENDED: Final = "a process ended"
"""Why a run ends of which another process has ended (``torchrun``)."""


class Stopped(BaseException):
    """Ends a run as ``KeyboardInterrupt`` does: with the best model so far.

    The command line raises it on signals. It is no error, since nothing went wrong.

    Attributes:
        reason: Why the run ends: ``"terminated"``, ``"hung up"`` or ``"a process ended"``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
