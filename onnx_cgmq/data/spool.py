"""Keeps batches: in memory while they are few, else in a file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data.files import CACHE_BYTES, Loaded

Kept = Callable[[], Loaded]
"""Returns a batch that is kept."""


class Spool:
    """Keeps batches: in memory while they are few, else in a file.

    The file has no name, so that nothing is left of it, however the process ends.

    Attributes:
        in_memory: Whether all batches are in memory.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.in_memory = True
        self._bytes = 0
        self._file: BinaryIO | None = None

    def keep(self, batch: Loaded) -> Kept:
        """Keeps a batch. If the file can't be written, it stays in memory.

        Returns:
            A function that returns the batch. Arrays in the file are mapped: only what is read of
            them takes memory, and only as long as they are held.
        """
        self._bytes += batch.nbytes
        if self._bytes <= CACHE_BYTES:
            return lambda: batch
        try:
            arrays = {name: self._written(array) for name, array in batch.inputs.items()}
        except OSError:  # a full disk
            return lambda: batch
        self.in_memory = False
        return _InFile(self, arrays, batch.labels).read

    def _written(self, array: npt.NDArray[Any]) -> _Place:
        """Writes an array at the end of the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="onnx-cgmq-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(array).data.cast("B"))
        self._file.flush()
        return _Place(offset, array.shape, array.dtype)

    def mapped(self, place: _Place) -> npt.NDArray[Any]:
        """Maps an array of the file."""
        if self._file is None or 0 in place.shape:  # nothing can't be mapped
            return np.empty(place.shape, place.dtype)
        return np.memmap(
            self._file, dtype=place.dtype, mode="r", offset=place.offset, shape=place.shape
        )


class _Place(NamedTuple):
    """Where an array is in a file, and what it is."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _InFile(NamedTuple):
    """A batch in a file."""

    spool: Spool
    arrays: dict[str, _Place]
    labels: npt.NDArray[np.int64] | None

    def read(self) -> Loaded:
        arrays = {name: self.spool.mapped(place) for name, place in self.arrays.items()}
        return Loaded(arrays, self.labels)
