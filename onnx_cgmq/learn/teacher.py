"""The float model as teacher; it computes each sample's outputs once if memory allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from onnx_cgmq.data.samples import Batch, Indices
from onnx_cgmq.learn import processes
from onnx_cgmq.learn.batches import joined, tensors
from onnx_cgmq.mirror.module import Mirror

_CACHE_LIMIT = 1 << 26  # values of outputs in the cache (256 MiB of float32)


class Teacher:
    """Computes the tensors of the float model that the loss compares, and caches them by sample.

    Samples that were read anew are other samples: what was computed before is given up.

    Attributes:
        names: Names of these tensors.
    """

    def __init__(
        self,
        mirror: Mirror,
        samples: int,
        names: Sequence[str] | None = None,
        micro_batch: int | None = None,
    ) -> None:
        """Wraps the mirror of the float model.

        Args:
            mirror: The mirror of the float model.
            samples: Number of samples in the data set.
            names: Names of the tensors that the loss compares; by default the outputs.
            micro_batch: The most samples to compute at once; ``None`` for any number.
        """
        self.names: tuple[str, ...] = tuple(names or mirror.output_names)
        self._mirror = mirror.eval()
        self._micro_batch = micro_batch
        self._samples = samples
        self._seen = np.zeros(samples, dtype=bool)
        self._finite: dict[str, tuple[int, int]] = {}
        self._known = np.zeros(samples, dtype=bool)
        self._cache: dict[str, Tensor] | None = None
        self._may_cache = True
        self._version = 0

    @torch.no_grad()
    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the tensors that the loss compares, by name, for a batch of the data set."""
        if batch.version != self._version:
            self._version = batch.version
            self._known[:] = False
        if (found := self._cached(batch.indices)) is not None:
            return found
        own = joined(self._computed, processes.own_part(batch).split(self._micro_batch))
        outputs = processes.gathered(own, len(batch.indices))
        self._count(batch, outputs)
        self._store(batch.indices, outputs)
        return outputs

    def _computed(self, batch: Batch) -> dict[str, Tensor]:
        return self._mirror.run(tensors(batch.inputs), self.names)

    def _cached(self, indices: Indices) -> dict[str, Tensor] | None:
        """The outputs of samples that all processes of a run know."""
        known = self._cache is not None and bool(self._known[indices].all())
        if not processes.every(known) or self._cache is None:
            return None
        index = torch.from_numpy(indices)
        return {name: cached[index] for name, cached in self._cache.items()}

    @property
    def is_defined(self) -> bool:
        """Whether any value computed so far is finite."""
        return any(finite for finite, _ in self._finite.values())

    @property
    def undefined_text(self) -> str:
        """Tensors with values that are NaN or infinite, and how many; empty if there are none.

        Of the samples computed so far, each counted once.
        """
        parts = [
            f"{name!r} ({total - finite:,} of {total:,})"
            for name, (finite, total) in self._finite.items()
            if finite < total
        ]
        return ", ".join(parts)

    def _count(self, batch: Batch, outputs: dict[str, Tensor]) -> None:
        """Counts the finite values of samples that are new."""
        new = ~self._seen[batch.indices]
        new[batch.size :] = False  # entries that only fill a batch
        if not new.any():
            return
        self._seen[batch.indices] = True
        for name, value in outputs.items():
            if not value.is_floating_point():
                continue
            if value.dim() and len(value) == len(new) and not new.all():
                value = value[torch.from_numpy(new).to(value.device)]
            finite, total = self._finite.get(name, (0, 0))
            found = int(torch.isfinite(value).sum())
            self._finite[name] = (finite + found, total + value.numel())

    def _store(self, indices: Indices, outputs: dict[str, Tensor]) -> None:
        if not self._may_cache:
            return
        if self._cache is None:
            rows = len(indices)
            by_sample = all(v.dim() > 0 and v.shape[0] == rows for v in outputs.values())
            size = sum(v.numel() for v in outputs.values()) // max(1, rows) * self._samples
            if not by_sample or size > _CACHE_LIMIT:
                self._may_cache = False
                return
            self._cache = {
                name: v.new_empty((self._samples, *v.shape[1:])) for name, v in outputs.items()
            }
        if any(v.shape[1:] != self._cache[name].shape[1:] for name, v in outputs.items()):
            self._may_cache, self._cache = False, None  # samples differ in shape
            return
        for name, value in outputs.items():
            self._cache[name][torch.from_numpy(indices)] = value
        self._known[indices] = True
