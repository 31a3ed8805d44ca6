"""Reads tensors whose data lies in a file beside the model, without keeping it in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import onnx_ir as ir


@contextmanager
def reading(tensor: ir.TensorProtocol) -> Iterator[npt.NDArray[Any]]:
    """Yields the values of a tensor, and frees the memory of external data at the end.

    External data is mapped from its file. Pages of a mapping that were read once would stay in
    memory. Views of the array may still be used afterwards; their pages are then read again.
    """
    try:
        yield tensor.numpy()
    finally:
        pages = tensor.raw if isinstance(tensor, ir.ExternalTensor) else None
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
