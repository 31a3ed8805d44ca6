"""Samples in several files, read when they are needed, within a fixed amount of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data.damage import DamagedFileError, check_few, damage_note
from onnx_cgmq.data.samples import Indices, Store
from onnx_cgmq.errors import DataError

CACHE_BYTES = 256 << 20
"""Memory for the content of files; one file is kept even if it is larger."""


class Loaded(NamedTuple):
    """Checked content of one file.

    Attributes:
        inputs: Inputs and target values by name, samples on axis 0.
        labels: Class indexes, if the file has labels.
    """

    inputs: dict[str, npt.NDArray[Any]]
    labels: npt.NDArray[np.int64] | None

    @property
    def nbytes(self) -> int:
        """Size of the inputs and target values in bytes."""
        return sum(array.nbytes for array in self.inputs.values())


class FileStore(Store):
    """Samples in files, in the order of the files.

    The constructor reads and checks every file once, so that bad data is reported before training
    and not in the middle of it. A few damaged files are left out, if ``load`` says that they are
    (:class:`~onnx_cgmq.data.damage.DamagedFileError`).

    Args:
        paths: The files (or folders) that ``load`` understands; at least one.
        load: Reads and checks one file.
        cache_bytes: Memory for the content of files, in bytes.

    Attributes:
        note: A sentence on the files that were left out; empty if there are none.

    Raises:
        DataError: A file can't be read, does not fit the model, or differs from the first one in
            the arrays that it has; or too many are damaged.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        load: Callable[[Path], Loaded],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._paths: list[Path] = []
        self._load = load
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[int, Loaded] = OrderedDict()
        self._cached = 0
        self._as_read: dict[int, tuple[tuple[str, tuple[int, ...]], ...]] = {}
        counts: list[int] = []
        sizes: list[int] = []
        labels: list[npt.NDArray[np.int64]] = []
        damaged: list[DamagedFileError] = []
        first: Loaded | None = None
        shapes: dict[tuple[tuple[str, tuple[int, ...]], ...], int] = {}
        forms: list[int] = []
        for path in paths:
            self._paths.append(path)
            try:
                loaded = self._file(len(self._paths) - 1)
            except DamagedFileError as error:
                self._paths.pop()
                damaged.append(error)
                check_few(damaged, len(paths))
                continue
            first = first or loaded
            if loaded.inputs.keys() != first.inputs.keys():
                raise DataError(
                    f"{path}: arrays {sorted(loaded.inputs)}, but {self._paths[0]} has "
                    f"{sorted(first.inputs)}; all files must have the same"
                )
            form = tuple((name, array.shape[1:]) for name, array in loaded.inputs.items())
            forms.append(shapes.setdefault(form, len(shapes)))
            if (loaded.labels is None) != (first.labels is None):
                raise DataError(
                    f"{path} and {self._paths[0]}: one has labels and the other has none; give "
                    "labels in all files, or in none"
                )
            counts.append(len(next(iter(loaded.inputs.values()))))
            sizes.append(loaded.nbytes)
            if loaded.labels is not None:
                labels.append(loaded.labels)
        self.note = damage_note(damaged, len(paths)) if damaged else ""
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._groups = _groups(sizes, cache_bytes)
        self._labels = np.concatenate(labels) if labels else None
        self._forms = np.repeat(forms, counts) if len(shapes) > 1 else None

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        return self._labels

    @property
    def forms(self) -> Indices | None:
        return self._forms

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, indices: Indices) -> dict[str, npt.NDArray[Any]]:
        files = self._file_of(indices)
        result: dict[str, npt.NDArray[Any]] = {}
        for number in np.unique(files):
            here = files == number
            rows = indices[here] - self._starts[number]
            for name, array in self._file(int(number)).inputs.items():
                if name not in result:
                    result[name] = np.empty((len(indices), *array.shape[1:]), array.dtype)
                result[name][here] = array[rows]
        return result

    def shuffle(self, indices: Indices, generator: np.random.Generator) -> Indices:
        # Files in random order, and samples shuffled within as many files as fit the cache.
        groups = self._groups[self._file_of(indices)]
        shuffled = generator.permutation(len(indices))
        rank = generator.permutation(int(self._groups[-1]) + 1)
        return shuffled[np.argsort(rank[groups[shuffled]], kind="stable")]

    def _file_of(self, indices: Indices) -> Indices:
        return np.searchsorted(self._starts, indices, side="right") - 1

    def _file(self, number: int) -> Loaded:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        loaded = self._load(self._paths[number])
        form = tuple((name, array.shape) for name, array in loaded.inputs.items())
        if self._as_read.setdefault(number, form) != form:
            raise DataError(
                f"{self._paths[number]}: the arrays have other shapes than when the run began; "
                "leave the data as it is during a run"
            )
        self._cache[number] = loaded
        self._cached += loaded.nbytes
        while len(self._cache) > 1 and self._cached > self._cache_bytes:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return loaded


def _groups(sizes: Sequence[int], limit: int) -> Indices:
    """The group number of every file; neighbours share a group if they fit the limit together."""
    groups: list[int] = []
    total = 0
    for size in sizes:
        fits = bool(groups) and total + size <= limit
        groups.append(groups[-1] if fits else (groups[-1] + 1 if groups else 0))
        total = total + size if fits else size
    return np.array(groups, dtype=np.int64)
