"""Chooses how many samples are computed at once, so that what a run keeps in memory is bounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.mirror.module import Mirror

RUN_BYTES: Final = 1 << 28
"""About how many bytes of activations a run without gradients keeps. Our choice."""

STEP_BYTES: Final = 3 << 30
"""About how many bytes a training step keeps for its gradients. Our choice."""

_TENSORS_PER_STEP: Final = 6
"""How many times a training step keeps each activation: its value, its codes, their gradients, and
what other operators keep. Our choice, on the large side."""


@torch.no_grad()
def bytes_per_sample(mirror: Mirror, data: Samples, names: Iterable[str]) -> int:
    """Returns the size of some values of the graph for one sample, from a run of the first one.

    Args:
        mirror: The mirror.
        data: The samples.
        names: Names of values of the graph.
    """
    batch = next(data.batches(1))
    with mirror.unquantized():
        values = mirror.run(tensors(batch.inputs), list(names))
    size = sum(v.nbytes for v in values.values() if isinstance(v, Tensor))
    return max(1, size // max(1, len(batch.indices)))


def samples_that_fit(size: int, *, training: bool) -> int:
    """Returns how many samples may be computed at once.

    Args:
        size: Bytes of the activations that are quantized, for one sample.
        training: Whether gradients are computed.
    """
    limit, times = (STEP_BYTES, _TENSORS_PER_STEP) if training else (RUN_BYTES, 1)
    return max(1, limit // (size * times))
