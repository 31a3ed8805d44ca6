"""Foresees how much memory learning takes, and chooses how many samples are computed at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from onnx_cgmq.data.samples import Batch, Samples
from onnx_cgmq.errors import ModelError
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.mirror.module import Mirror

RUN_BYTES: Final = 1 << 28
"""About how many bytes of activations a run without gradients makes. Our choice."""

STEP_BYTES: Final = 1 << 29
"""The most bytes that a training step takes, if it can do with them. Our choice."""

_FREE_SHARE: Final = 0.8
"""Share of the available memory that learning may take. Our choice."""

_LARGEST_VALUES: Final = 5
"""How many values as large as the largest one a backward pass adds: gradients, and what operators
compute in between. Ours, made on EfficientNet and text detection."""

_WEIGHT_COPIES: Final = 4
"""Gradients, both moments of Adam, and the best state."""

_SAME: Final = 1e-3
"""How far outputs of a sample may be apart, relative to the largest, alone and in a batch."""


@dataclass(frozen=True)
class StepMemory:
    """The bytes that a training step takes, as measured.

    Attributes:
        fixed: Bytes that do not grow with the batch, such as quantized weights.
        sample: Bytes for each sample.
        most: The most bytes that it may take on this machine; ``None`` if that can't be told.
    """

    fixed: int
    sample: int
    most: int | None = None

    def samples_within(self, limit: int | None) -> int:
        """How many samples a step may have that takes at most ``limit`` bytes; at least one."""
        room = min((n for n in (limit, self.most) if n is not None), default=self.fixed)
        return max(1, (room - self.fixed) // self.sample)


def measure_step(mirror: Mirror, data: Samples) -> StepMemory:
    """Measures what a training step takes: what its forward pass keeps for gradients.

    The largest sample is run alone, and twice in one batch. A pass ends as soon as it keeps more
    than there is.

    Args:
        mirror: The mirror.
        data: The samples.

    Raises:
        ModelError: Not even a step on one sample fits into memory.
    """
    most = _most_bytes(mirror)
    index = _largest(data)
    rows = data.step(1)
    with _quantized(mirror):
        try:
            one = _bytes_kept(mirror, data.batch(np.repeat(index, rows)), most)
        except _OverLimitError as error:
            raise _too_large(error.limit, rows) from None
        if not _batches_vary(data):
            return StepMemory(0, max(1, one // rows), most)
        try:
            sample = _bytes_kept(mirror, data.batch(np.repeat(index, 2)), most) - one
        except _OverLimitError:
            sample = one
    return StepMemory(max(0, one - sample), max(1, sample), most)


@torch.no_grad()
def is_by_sample(mirror: Mirror, data: Samples) -> bool:
    """Whether outputs have samples on axis 0, which do not depend on the others of their batch."""
    if not _batches_vary(data):
        return False
    alone, twice = (data.batch(np.zeros(count, np.int64)) for count in (1, 2))
    with mirror.unquantized():
        one, two = (mirror(tensors(batch.inputs)) for batch in (alone, twice))
    for name, value in one.items():
        if not value.dim() or len(value) != 1 or two[name].shape != (2, *value.shape[1:]):
            return False
        wanted, found = value[0].double(), two[name][0].double()
        tolerance = _SAME * float(wanted.abs().max()) if wanted.numel() else 0.0
        if not torch.allclose(found, wanted, rtol=0, atol=tolerance, equal_nan=True):
            return False
    return True


@torch.no_grad()
def bytes_per_sample(mirror: Mirror, data: Samples, names: Iterable[str]) -> int:
    """Returns the size of some quantized tensors for one sample, from a run of the first one.

    Args:
        mirror: The mirror.
        data: The samples.
        names: Names of quantized tensors.
    """
    sizes: list[int] = []
    batch = next(data.batches(1))
    with (
        mirror.unquantized(),
        mirror.shown(dict.fromkeys(names, lambda tensor: sizes.append(tensor.nbytes))),
    ):
        mirror(tensors(batch.inputs))
    return max(1, sum(sizes) // max(1, len(batch.indices)))


def samples_that_fit(size: int) -> int:
    """Returns how many samples may be computed at once without gradients.

    Args:
        size: Bytes of the activations that the run makes, for one sample.
    """
    return max(1, RUN_BYTES // size)


def available_bytes(device: torch.device) -> int | None:
    """Returns how much memory a device has left for this process; ``None`` if that can't be told.

    A GPU of Apple shares that of the machine.
    """
    if device.type == "cuda":
        own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + own
    found = []
    try:
        info = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(info["MemAvailable"].split()[0]) << 10)
        group = Path("/sys/fs/cgroup")  # of a container
        used = int((group / "memory.current").read_text())
        text = (group / "memory.stat").read_text()
        cached = int(dict(line.split() for line in text.splitlines())["inactive_file"])
        found.append(int((group / "memory.max").read_text()) - used + cached)
    except (OSError, KeyError, ValueError):  # not Linux, no container, or "max"
        pass
    return min(found, default=None)


class _OverLimitError(Exception):
    """A pass keeps more than there is."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


@contextmanager
def _quantized(mirror: Mirror) -> Iterator[None]:
    """Quantizes all tensors that may be, which keeps more for gradients than floats do."""
    gates = {quantizer: quantizer.gate.clone() for quantizer in mirror.quantizers.values()}
    try:
        for quantizer in gates:
            if widths := quantizer.spec.ladder.quantized:
                widest = np.full(quantizer.spec.gate_shape, max(widths))
                quantizer.set_gate(quantizer.gate_for(widest))
        yield
    finally:
        for quantizer, gate in gates.items():
            quantizer.set_gate(gate)


def _bytes_kept(mirror: Mirror, batch: Batch, limit: int | None) -> int:
    """Runs a batch forward, and counts what a training step takes.

    Raises:
        _OverLimitError: It is more than the limit.
    """
    own = {t.untyped_storage().data_ptr() for t in chain(mirror.parameters(), mirror.buffers())}
    kept: dict[int, int] = {}
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in kept:
            kept[storage.data_ptr()] = int(storage.nbytes())
            total += int(storage.nbytes())
            if limit is not None and total > limit:
                raise _OverLimitError(limit)
        # An output that its own graph keeps as it is would keep that graph alive for ever.
        return tensor.detach()

    with saved_tensors_hooks(count, lambda tensor: tensor):
        outputs = mirror(tensors(batch.inputs))
    total += sum(int(value.nbytes) for value in outputs.values())
    return total + _LARGEST_VALUES * max(kept.values(), default=0)


def _most_bytes(mirror: Mirror) -> int | None:
    """The most bytes that a training step may take; ``None`` if that can't be told.

    Raises:
        ModelError: There is no room even for what learning keeps of the weights.
    """
    available = available_bytes(mirror.device)
    if available is None:
        return None
    weights = _WEIGHT_COPIES * sum(p.nbytes for p in mirror.parameters())
    most = int(_FREE_SHARE * available) - weights
    if most <= 0:
        raise ModelError(
            f"learning keeps {_gigabytes(weights)} of weights and their gradients, but only "
            f"{_gigabytes(available)} of memory are available; {_ADVICE}"
        )
    return most


def _too_large(limit: int, rows: int) -> ModelError:
    samples = "a single sample" if rows == 1 else f"{rows} samples, the batch that the model fixes,"
    return ModelError(
        f"a training step on {samples} takes more than the {_gigabytes(limit)} of memory that are "
        f"left for it; {_ADVICE}, or give smaller samples (images, sequences)"
    )


_ADVICE: Final = "free some, or run on a machine that has more"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _batches_vary(data: Samples) -> bool:
    """Whether a batch may have any number of samples."""
    return not data.unbatched and data.fixed_batch is None


def _largest(data: Samples) -> int:
    """The position of a sample with the largest inputs."""
    forms = data.store.forms
    if forms is None:
        return 0
    _, firsts = np.unique(forms[data.indices], return_index=True)
    sizes = {
        int(first): sum(a.nbytes for a in data.batch(np.array([first])).inputs.values())
        for first in firsts
    }
    return max(sizes, key=lambda first: sizes[first])
