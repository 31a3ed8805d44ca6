"""From numpy batches to what the mirror and the loss take."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnx_cgmq.data.checks import LABEL
from onnx_cgmq.data.samples import Batch

Answers = Tensor | Mapping[str, Tensor] | None
"""Class indexes int64 ``[N]``; targets by output name, with those under ``label``; or nothing."""


def tensors(arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Tensor]:
    """Arrays as tensors by input name; not copied where they are writable and contiguous."""
    return {
        name: torch.from_numpy(np.require(array, requirements=["C", "W"]))
        for name, array in arrays.items()
    }


def answers(batch: Batch, rows: int) -> Answers:
    """What the data says that the outputs of the first ``rows`` samples should be."""
    labels = None if batch.labels is None else torch.from_numpy(batch.labels[:rows])
    if not batch.targets:
        return labels
    targets = tensors({name: array[:rows] for name, array in batch.targets.items()})
    return targets if labels is None else {**targets, LABEL: labels}
