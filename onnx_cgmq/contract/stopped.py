"""What ends a run at the wish of the user, besides ``KeyboardInterrupt``."""

from __future__ import annotations


class Stopped(BaseException):
    """Ends a run as ``KeyboardInterrupt`` does: with the best model so far.

    The command line raises it on signals. It is no error, since nothing went wrong.

    Attributes:
        reason: Why the run ends: ``"terminated"`` or ``"hung up"``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
