"""Keeps values between parts of a network: in memory while they are few, else in files."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.inputs import moved

Values = dict[int, Any]
"""Values between two parts, by slot."""

_MOST_BYTES: Final = 1 << 27
"""How many bytes are kept in memory. Our choice: files come from the system's cache, which takes
little of a training step's time."""

_ALIGNMENT: Final = 64
"""Where tensors begin, as those do that torch allocates."""


class Shelf:
    """A list of values for each batch, which can be read and replaced one by one.

    Use it in a ``with`` statement: at the end its files are deleted.
    """

    def __init__(self, device: torch.device) -> None:
        """Starts empty; what is read from it is on a device, what it keeps is not."""
        self._device = device
        self._items: list[Values | Path] = []
        self._sizes: list[int] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._items.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Values:
        item = self._items[index]
        values: Values = torch.load(item, weights_only=True) if isinstance(item, Path) else item
        return {slot: moved(value, self._device) for slot, value in values.items()}

    def append(self, values: Values) -> None:
        """Adds the values of a further batch."""
        self._items.append({})
        self._sizes.append(0)
        self.replace(len(self) - 1, values)

    def replace(self, index: int, values: Values) -> None:
        """Replaces the values of a batch.

        If no file can be written, they stay in memory.
        """
        size = sum(v.nbytes for v in values.values() if isinstance(v, Tensor))
        self._sizes[index], self._items[index] = size, {}
        if sum(self._sizes) <= _MOST_BYTES:
            self._items[index] = _mapped(values)
            return
        try:
            path = self._path(index)
            # Views are copied: a file would have all of the tensor that they are a part of.
            torch.save({slot: _copied(value) for slot, value in values.items()}, path)
        except (OSError, RuntimeError):  # a full disk
            self._items[index] = _mapped(values)
            return
        self._items[index] = path
        self._sizes[index] = 0

    def _path(self, index: int) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="onnx-cgmq-")
        return Path(self._folder.name) / f"{index}.pt"


def _mapped(values: Values) -> Values:
    """Copies values to memory of their own, which the system gets back as soon as they go.

    Among the buffers that training steps free and allocate they would be in the way.
    """
    starts, size = {}, 0
    for slot, value in values.items():
        if isinstance(value, Tensor) and value.numel():
            starts[slot] = size
            size += -(-value.nbytes // _ALIGNMENT) * _ALIGNMENT
    if not size:
        return values
    memory = torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
    found = dict(values)
    for slot, start in starts.items():
        value = values[slot].detach()
        strides = torch.empty_like(value, device="meta").stride()  # a clone would have them
        room = memory[start : start + value.nbytes].view(value.dtype)
        found[slot] = room.as_strided(value.shape, strides, room.storage_offset()).copy_(value)
    return found


def _copied(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
