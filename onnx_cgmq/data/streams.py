"""Batches that come one after the other: kept once, or read anew in each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data.files import FileStore, Loaded
from onnx_cgmq.data.samples import ArrayStore, Indices, Store
from onnx_cgmq.data.spool import Kept, Spool
from onnx_cgmq.errors import DataError

_CHUNK_BYTES = 64 << 20
"""Batches are joined to arrays of this size: no more than that is in memory twice."""


def collected(batches: Iterable[Loaded]) -> Store:
    """Keeps batches. Samples that differ in shape are in arrays of their own."""
    spool = Spool()
    chunks: dict[tuple[Any, ...], _Chunks] = {}
    for batch in batches:
        form = tuple((name, array.shape[1:]) for name, array in batch.inputs.items())
        chunks.setdefault(form, _Chunks(spool)).add(batch)
    joined = [chunk for form in chunks.values() for chunk in form.end()]
    if len(joined) == 1 and spool.in_memory:
        whole = joined[0]()
        return ArrayStore(whole.inputs, whole.labels)
    return _ChunkStore(joined)


class _ChunkStore(FileStore):
    """Samples in chunks, of which any sample can be read alone: any order will do."""

    def __init__(self, chunks: Sequence[Kept]) -> None:
        names = [Path(str(number)) for number in range(len(chunks))]
        super().__init__(names, lambda path: chunks[int(path.name)](), cache_bytes=0)

    def shuffle(self, indices: Indices, generator: np.random.Generator) -> Indices:
        return generator.permutation(len(indices))


@dataclass
class _Chunks:
    """Batches of one form, joined as they come."""

    spool: Spool
    done: list[Kept] = field(default_factory=list)
    loose: list[Loaded] = field(default_factory=list)
    loose_bytes: int = 0

    def add(self, batch: Loaded) -> None:
        self.loose.append(batch)
        self.loose_bytes += batch.nbytes
        if self.loose_bytes >= _CHUNK_BYTES:
            self._join()

    def end(self) -> list[Kept]:
        if self.loose:
            self._join()
        return self.done

    def _join(self) -> None:
        self.done.append(self.spool.keep(_joined(self.loose)))
        self.loose, self.loose_bytes = [], 0


def _joined(batches: list[Loaded]) -> Loaded:
    if len(batches) == 1:
        return batches[0]
    arrays = {name: np.concatenate([b.inputs[name] for b in batches]) for name in batches[0].inputs}
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Loaded(arrays, np.concatenate(labels) if labels else None)


def can_be_read_anew(data: Any) -> bool:
    """Whether data is a loader, which may give other batches each time (random augmentation).

    A list gives the same ones, and an iterator gives them once.
    """
    return (
        hasattr(data, "__iter__")
        and hasattr(data, "__len__")
        and not isinstance(data, (Mapping, list, tuple, str, bytes))
        and not hasattr(data, "__array__")
        and not hasattr(data, "get_next")
        and not hasattr(data, "__next__")
    )


class LoaderStore(Store):
    """Samples of a loader, kept until they are read anew.

    Args:
        store: The samples of the first pass, all of one shape.
        read: Reads the loader from its begin to its end.
        where: What the loader is, for the messages.
    """

    def __init__(self, store: Store, read: Callable[[], Store], where: str) -> None:
        self._store = store
        self._read = read
        self._where = where
        self._count = len(store)
        self._has_labels = store.labels is not None
        self._is_new = True

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        return self._store.labels

    @property
    def forms(self) -> Indices | None:
        return None

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Indices) -> dict[str, npt.NDArray[Any]]:
        return self._store.read(indices)

    def shuffle(self, indices: Indices, generator: np.random.Generator) -> Indices:
        return self._store.shuffle(indices, generator)

    def fixed(self) -> Store:
        return self._store

    def renew(self) -> None:
        """Reads the samples anew, but for the first time: then they have just been read.

        Those before are given up first, so that only one set of them takes memory, or a file.

        Raises:
            DataError: The loader fails; or there are more or fewer samples than in the first pass,
                or labels where there were none, or samples of several shapes.
        """
        if self._is_new:
            self._is_new = False
            return
        self._store = ArrayStore({}, None)
        self._store = store = self._read()
        self.version += 1
        if len(store) != self._count:
            raise DataError(
                f"{self._where}: {len(store)} samples, but {self._count} in the first pass; give "
                "as many in each, or a list of the batches, which is read once"
            )
        if (store.labels is not None) != self._has_labels or store.forms is not None:
            raise DataError(
                f"{self._where}: other than in the first pass, samples differ in shape, or have "
                "labels, or have none; give the same in each, or a list of the batches, which is "
                "read once"
            )
