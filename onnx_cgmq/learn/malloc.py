"""Keeps freed memory in the process while a model trains, within a bound."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2

_KEEPING: Final = {_MMAP_THRESHOLD: 2**31 - 1, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 1 << 26}
_DEFAULTS: Final = dict.fromkeys(_KEEPING, 128 << 10)
"""The values that glibc begins with. It can't be asked for those that hold."""

_SET_BY_THE_USER: Final = ("GLIBC_TUNABLES", "MALLOC_")
"""How the names of environment variables begin that set the allocator."""

_MOST_KEPT: Final = 1 << 28
"""By how many bytes a process may grow until it gives back what is free. Our choice: so many that
most rounds give nothing back and have no page faults."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Asks glibc in the block not to give large freed buffers back to the operating system.

    Each training step frees and allocates the same few large buffers. By default glibc unmaps them,
    and the page faults of their next use take a large part of a step's time. At the end all that
    is free is given back, and glibc gets its defaults again.

    Nothing happens with another allocator, or if environment variables set this one.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    mallopt: Callable[[int, int], int] = libc.mallopt
    try:
        for parameter, value in _KEEPING.items():
            mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            mallopt(parameter, value)
        libc.malloc_trim(0)


class FreedMemory:
    """What a loop frees: kept for its next round, but not without end.

    Between large buffers that were freed there are small ones in use, so that the next large ones
    may not fit in there, and the process grows from round to round.
    """

    def __init__(self) -> None:
        """Gives back what is free now, and starts with the memory that the process has then."""
        self._give_back()

    def limit(self) -> None:
        """Gives what is free back if the process has grown by too much; to be called each round."""
        if _resident_bytes() - self._start > _MOST_KEPT:
            self._give_back()

    def _give_back(self) -> None:
        libc = _glibc()
        if libc is not None:
            libc.malloc_trim(0)
        self._start = _resident_bytes()


def _resident_bytes() -> int:
    """The memory of this process; 0 on systems that do not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    if any(name.startswith(_SET_BY_THE_USER) for name in os.environ):
        return None
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
