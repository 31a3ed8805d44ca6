"""Samples: checked data with random access, in memory or streamed from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_READ_BYTES: Final = 1 << 28
"""The most bytes of samples that are read at once, where no batch of a certain size is needed. Our
choice."""


@dataclass(frozen=True)
class Batch:
    """A few samples, stacked.

    Attributes:
        inputs: Arrays by input name, shape ``[batch, ...]``, in the types that the model wants.
        labels: Class indexes, int64 ``[batch]``, or ``None``.
        indices: Positions of the samples within their :class:`Samples`, int64 ``[batch]``.
        size: Number of samples asked for. Further entries only fill the batch up to a size that the
            model fixes; they repeat the last sample and must not count in any result.
        targets: Target values by output name: float32, or int64 class indexes.
        version: How often the samples were read anew (:meth:`Samples.shuffled`): what was computed
            of a sample of another version is no longer true.
    """

    inputs: dict[str, npt.NDArray[Any]]
    labels: npt.NDArray[np.int64] | None
    indices: Indices
    size: int
    targets: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    version: int = 0

    def split(self, size: int | None) -> list[Batch]:
        """Splits the batch into batches of at most ``size`` samples, in order.

        Args:
            size: Number of samples; ``None`` for any. A batch whose size the model fixes, which
                may have further entries, is not split.
        """
        rows = len(self.indices)
        if size is None or rows <= size or rows != self.size:
            return [self]
        return [self.part(slice(start, start + size)) for start in range(0, rows, size)]

    def part(self, rows: slice) -> Batch:
        """Some neighbouring samples of the batch."""
        return Batch(
            inputs={name: array[rows] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[rows],
            indices=self.indices[rows],
            size=len(self.indices[rows]),
            targets={name: array[rows] for name, array in self.targets.items()},
            version=self.version,
        )


class Store(Protocol):
    """A place that holds samples.

    Attributes:
        version: How often they were read anew.
    """

    version: int = 0

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Labels of all samples, int64 ``[samples]``, or ``None``."""

    @property
    def forms(self) -> Indices | None:
        """A number for the shape of each sample, int64 ``[samples]``; ``None`` if all are alike."""

    def __len__(self) -> int: ...

    def read(self, indices: Indices) -> dict[str, npt.NDArray[Any]]:
        """Reads inputs and target values of samples of one form, in the order of ``indices``.

        The result may be a view if the indices count up one by one.
        """

    def shuffle(self, indices: Indices, generator: np.random.Generator) -> Indices:
        """Positions in ``indices``, in a random order in which this store reads efficiently."""

    def renew(self) -> None:
        """Reads the samples anew, if they may be others each time."""
        return

    def fixed(self) -> Store:
        """The samples as they are now, which :meth:`renew` does not change."""
        return self


class ArrayStore(Store):
    """Samples in memory. The arrays are not copied."""

    def __init__(
        self, inputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[np.int64] | None
    ) -> None:
        self._inputs = inputs
        self._labels = labels

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        return self._labels

    @property
    def forms(self) -> Indices | None:
        return None

    def __len__(self) -> int:
        return len(next(iter(self._inputs.values())))

    def read(self, indices: Indices) -> dict[str, npt.NDArray[Any]]:
        rows = contiguous(indices)
        return {name: array[rows] for name, array in self._inputs.items()}

    def shuffle(self, indices: Indices, generator: np.random.Generator) -> Indices:
        return generator.permutation(len(indices))


def contiguous(indices: Indices) -> slice | Indices:
    """Makes a slice of indices that count up one by one, so that indexing gives a view."""
    if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return slice(int(indices[0]), int(indices[0]) + len(indices))
    return indices


@dataclass(frozen=True)
class Samples:
    """Checked data of a model.

    Attributes:
        store: The place that holds the samples.
        indices: Rows of the store that belong to this set, int64 ``[samples]``.
        fixed_batch: The batch size that the model fixes, or ``None``.
        outputs: Names of the model's outputs; an array of the store with such a name holds target
            values.
        unbatched: Names of inputs without a batch axis. If there are any, a batch is one sample,
            and these inputs are its whole arrays.
        notes: Sentences on how the data was read, which the user should see.
    """

    store: Store
    indices: Indices
    fixed_batch: int | None = None
    outputs: tuple[str, ...] = ()
    unbatched: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        store: Store,
        fixed_batch: int | None = None,
        outputs: tuple[str, ...] = (),
        unbatched: frozenset[str] = frozenset(),
    ) -> Samples:
        """Makes a set of all samples of a store."""
        return cls(store, np.arange(len(store)), fixed_batch, outputs, unbatched)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class indexes of all samples, int64 ``[samples]``, or ``None``."""
        labels = self.store.labels
        return None if labels is None else labels[self.indices]

    @property
    def has_labels(self) -> bool:
        """Whether every sample has a class index."""
        return self.store.labels is not None

    def batch(self, indices: Indices) -> Batch:
        """Reads the samples at ``indices``, which are positions in this set, in that order."""
        rows = self.indices[indices]
        labels = self.store.labels
        arrays = self.store.read(rows)
        return Batch(
            inputs={
                name: np.asarray(a[0]) if name in self.unbatched else a
                for name, a in arrays.items()
                if name not in self.outputs
            },
            labels=None if labels is None else labels[rows],
            indices=np.asarray(indices, dtype=np.int64),
            size=len(rows),
            targets={name: a for name, a in arrays.items() if name in self.outputs},
            version=self.store.version,
        )

    def batches(
        self,
        batch_size: int,
        *,
        order: Indices | None = None,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """Yields batches over all samples.

        Samples of different lengths are in different batches: one is yielded as soon as it is full,
        those that do not get full come last.

        Args:
            batch_size: Samples in a batch. If the model fixes the batch size, that one is used, and
                the last batch is filled up (see :attr:`Batch.size`).
            order: Positions in the wanted order (:meth:`shuffled`); ``None`` for ascending.
            drop_last: Leave out the last batch if it is not full, unless it is the only one.
            skip: Batches to leave out at the beginning, without reading them.
        """
        size = self.step(batch_size)
        positions = np.arange(len(self)) if order is None else order
        for number, part in enumerate(self._parts(positions, size)):
            if drop_last and number and len(part) < size:
                return
            if number < skip:
                continue
            missing = (self.fixed_batch or 0) - len(part)
            if missing <= 0:
                yield self.batch(part)
                continue
            full = self.batch(np.concatenate([part, np.repeat(part[-1:], missing)]))
            yield replace(full, size=len(part))

    def batch_count(self, batch_size: int) -> int:
        """How many batches :meth:`batches` yields without ``drop_last``."""
        size, forms = self.step(batch_size), self.store.forms
        if forms is None:
            return -(-len(self) // size)
        _, counts = np.unique(forms[self.indices], return_counts=True)
        return int((-(-counts // size)).sum())

    def _parts(self, positions: Indices, size: int) -> Iterator[Indices]:
        """The positions of each batch."""
        forms = self.store.forms
        if forms is None:
            for start in range(0, len(positions), size):
                yield positions[start : start + size]
            return
        open_parts: dict[int, list[int]] = {}
        for position in positions:
            form = int(forms[self.indices[position]])
            part = open_parts.setdefault(form, [])
            part.append(int(position))
            if len(part) == size:
                yield np.array(open_parts.pop(form), dtype=np.int64)
        for part in open_parts.values():
            yield np.array(part, dtype=np.int64)

    def at_once(self, most: int) -> int:
        """How many samples to read at once: at most ``most``, and with 256 MiB at most.

        Where samples differ in size, the first one counts.
        """
        first = self.batch(np.zeros(1, np.int64))
        size = sum(array.nbytes for array in (*first.inputs.values(), *first.targets.values()))
        return max(1, min(most, _READ_BYTES // max(1, size)))

    def step(self, batch_size: int) -> int:
        """Samples in a batch, if ``batch_size`` are asked for."""
        return 1 if self.unbatched else self.fixed_batch or batch_size

    def shuffled(self, seed: int | Sequence[int]) -> Indices:
        """A random order for :meth:`batches` in which each file of samples is read about once.

        If the samples are those of a loader, which may change them at random, it is read anew for
        each order after the first.
        """
        self.store.renew()
        return self.store.shuffle(self.indices, np.random.default_rng(seed))

    def subset(self, indices: Indices) -> Samples:
        """Makes a set of the samples at ``indices``."""
        return replace(self, indices=self.indices[indices])

    def drawn(self, count: int, seed: int = 0) -> Samples:
        """Makes a set of ``count`` samples drawn at random, or of all if there are no more.

        They stay in their order, so that files are read one after the other; and they stay the
        same, even if a loader would give others.
        """
        whole = self.fixed()
        if len(self) <= count:
            return whole
        drawn = np.random.default_rng(seed).permutation(len(self))[:count]
        return whole.subset(np.sort(drawn))

    def fixed(self) -> Samples:
        """The samples as they are now, which are never read anew."""
        return replace(self, store=self.store.fixed())

    def split(self, validation_share: float, seed: int) -> tuple[Samples, Samples]:
        """Splits the set at random into ``(training, held_out)``, each with at least one sample.

        If the share is 0, or if there is only one sample, both are the whole set. The samples are
        never read anew: a loader that shuffles would mix both sets.
        """
        whole = self.fixed()
        if validation_share <= 0 or len(self) < 2:
            return whole, whole
        generator = np.random.default_rng(seed)
        count = min(max(1, round(validation_share * len(self))), len(self) - 1)
        drawn = generator.permutation(len(self))
        parts = []
        for part in (drawn[count:], drawn[:count]):
            parts.append(whole.subset(part[whole.store.shuffle(self.indices[part], generator)]))
        return parts[0], parts[1]
