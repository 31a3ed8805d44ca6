"""Chooses how many samples run at once, so that judging a model takes little memory."""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from onnx_cgmq.ort.sizes import Sizes

_LARGEST_BYTES: Final = 1 << 25
"""Bytes that the largest value of a batch may take, in float32. Our choice: a run has a few such
values at once, and onnxruntime keeps their memory until its session ends."""

_UNKNOWN: Final = 8
"""Samples at once if the data decide how large values get. Our choice."""


def samples_at_once(model: ir.Model, most: int) -> int:
    """Returns how many samples should run at once.

    Args:
        model: The model that runs, or one with values of about the same sizes.
        most: How many may run at once if they are small.
    """
    sizes = Sizes(model)
    moving = set(model.graph.inputs)
    elements = 1
    for node in model.graph:
        if moving.isdisjoint(node.inputs):  # it computes of weights, which samples share
            continue
        moving.update(node.outputs)
        for shape in map(sizes.shape, node.outputs):
            known = [size for size in shape or () if size is not None]
            if shape is None or len(known) < len(shape):
                return min(most, _UNKNOWN)
            elements = max(elements, math.prod(known))
    of_a_sample = elements * 4 / sizes.samples
    return max(1, min(most, int(_LARGEST_BYTES / of_a_sample)))
