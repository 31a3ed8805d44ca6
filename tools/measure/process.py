"""Processor time and peak memory of a piece of work in this process (Linux); needs Python alone."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path


def measured(work: Callable[[], object]) -> tuple[float, int]:
    """Does a piece of work.

    Returns:
        The seconds of processor time that it took, over all threads, and the largest memory of this
        process meanwhile, in bytes. On one thread of a quiet machine, processor time is what a
        clock shows; other work does not change it. What the process held before, such as data,
        counts; memory that it has given back does not.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    began = time.process_time()
    work()
    seconds = time.process_time() - began
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM"))
    return seconds, int(peak.split()[1]) * 1024
