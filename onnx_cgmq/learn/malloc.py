"""Keeps freed memory in the process while a model trains."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Asks glibc not to give large freed buffers back to the operating system.

    Each training step frees and allocates the same few large buffers. By default glibc unmaps them,
    and the page faults of their next use take a large part of a step's time.

    Returns:
        Whether glibc accepted the settings; ``False`` where the allocator is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    largest = 2**31 - 1
    settings = ((_M_MMAP_THRESHOLD, largest), (_M_TRIM_THRESHOLD, largest), (_M_TOP_PAD, 1 << 26))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
