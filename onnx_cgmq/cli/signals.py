"""Makes SIGTERM and SIGHUP do what Ctrl-C does while a command runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from onnx_cgmq.contract.stopped import PROCESS_ENDED, Stopped

INTERRUPTED = "interrupted"
EXIT_CODES = {INTERRUPTED: 130, "terminated": 143, "hung up": 129, PROCESS_ENDED: 10}
"""Exit codes by the reason why a command stopped: 128 + the number of the signal, as in shells."""

_REASONS = {"SIGINT": INTERRUPTED, "SIGTERM": "terminated", "SIGHUP": "hung up"}

_asked: list[str] = []
"""Why the command was asked to stop, in the order of the signals."""


@contextmanager
def signals_stop() -> Iterator[None]:
    """Raises ``KeyboardInterrupt`` or :class:`Stopped` in the block when a signal asks to stop.

    This is for the main thread of the command line, and does nothing elsewhere. A signal that was
    ignored before stays so, as ``nohup`` wants it. At the end the handlers are what they were.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _REASONS:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None:
                continue
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _stop)
    _asked.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_to_stop() -> str | None:
    """Returns why the command was asked to stop, if it was.

    C++ code that an exception interrupts, such as a module that is being imported, may raise one of
    another kind. This tells such an error from a real one.
    """
    return _asked[0] if _asked else None


def _stop(number: int, _: FrameType | None) -> None:
    reason = _REASONS[signal.Signals(number).name]
    _asked.append(reason)
    if reason == INTERRUPTED:
        raise KeyboardInterrupt
    if reason == "hung up":
        _leave_terminal()
    raise Stopped(reason)


def _leave_terminal() -> None:
    """Lets output to a terminal that is gone vanish: any of it would be an error from now on."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
