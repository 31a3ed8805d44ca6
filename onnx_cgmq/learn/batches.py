"""Makes tensors, for the mirror and the loss, of batches in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnx_cgmq.data.checks import LABEL
from onnx_cgmq.data.samples import Batch

Answers = Tensor | Mapping[str, Tensor] | None
"""Labels and target values of a batch of N samples.

This is an int64 tensor ``[N]`` of class indexes if there are labels only. It is a mapping of target
values by output name, with the labels as ``label``, if there are target values. It is ``None`` if
there are neither.
"""


def tensors(arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Tensor]:
    """Makes tensors on the CPU of arrays, by name; writable contiguous arrays are not copied.

    A mirror moves its inputs to where it computes.
    """
    return {
        name: torch.from_numpy(np.require(array, requirements=["C", "W"]))
        for name, array in arrays.items()
    }


def answers(batch: Batch, rows: int, device: torch.device) -> Answers:
    """Returns labels and target values of the first ``rows`` samples of a batch, on a device."""
    found = {name: array[:rows] for name, array in batch.targets.items()}
    if batch.labels is not None:
        found[LABEL] = batch.labels[:rows]
    on_device = {name: tensor.to(device) for name, tensor in tensors(found).items()}
    return on_device if batch.targets else on_device.get(LABEL)


def joined(
    run: Callable[[Batch], dict[str, Tensor]], batches: Sequence[Batch]
) -> dict[str, Tensor]:
    """What ``run`` gives for all of the batches, stacked along axis 0."""
    found = [run(batch) for batch in batches]
    if len(found) == 1:
        return found[0]
    return {name: torch.cat([outputs[name] for outputs in found]) for name in found[0]}
