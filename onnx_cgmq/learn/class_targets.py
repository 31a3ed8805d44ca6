"""Checks class indexes against the outputs that have a score for each class."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from onnx_cgmq.data.samples import Indices, Samples
from onnx_cgmq.errors import DataError
from onnx_cgmq.learn.loss_function import Outputs

NO_CLASS: Final = -100
"""A class index that the loss leaves out, as in torch: a pixel that belongs to nothing."""


_BATCH_SIZE = 256


def check_class_targets(samples: Samples, outputs: Outputs, scores: str | None) -> None:
    """Refuses labels and target values that are class indexes, but of no class.

    Args:
        samples: The samples; all of them are read, if they have target values of this kind.
        outputs: Outputs for a batch by name; those with class scores are ``[N, classes, ...]``.
        scores: Name of the output that labels are for, if there is one.

    Raises:
        DataError: A class index is negative or too large; the message names value and sample.
    """
    if scores is not None and samples.labels is not None:
        _check(samples.labels, outputs[scores], "label", samples.indices)
    for batch in samples.batches(samples.at_once(_BATCH_SIZE)):
        found = {
            name: array
            for name, array in batch.targets.items()
            if array.dtype.kind == "i" and name in outputs and array.ndim + 1 == outputs[name].dim()
        }
        if not found:
            return  # all batches have the same target values
        for name, array in found.items():
            _check(array, outputs[name], f"target values {name!r}", samples.indices[batch.indices])


def _check(indexes: npt.NDArray[np.int64], output: Tensor, what: str, samples: Indices) -> None:
    classes = output.shape[1]
    wrong = (indexes != NO_CLASS) & ((indexes < 0) | (indexes >= classes))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        inside = f" (at index {list(place[1:])})" if place[1:] else ""
        raise DataError(
            f"{what}: {indexes[place]} in sample {samples[place[0]]}{inside} is not a class "
            f"index of the model (0 to {classes - 1}; {NO_CLASS} in target values doesn't count)"
        )
