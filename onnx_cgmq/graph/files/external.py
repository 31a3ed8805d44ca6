"""Reading tensors whose data lies in a file beside the model, without keeping it in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import onnx_ir as ir


@contextmanager
def reading(tensor: ir.TensorProtocol) -> Iterator[npt.NDArray[Any]]:
    """Gives the values of a tensor; external data leaves memory again at the end.

    External data is mapped from its file, and pages of a mapping stay resident once they were read.
    Views of the array may be used later: its pages are then read anew.
    """
    try:
        yield tensor.numpy()
    finally:
        pages = tensor.raw if isinstance(tensor, ir.ExternalTensor) else None
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
