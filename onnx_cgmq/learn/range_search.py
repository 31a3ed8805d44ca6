"""Searches the ranges of activations by what a part of the network gives, not by their own error.

The least squared error of a tensor does not know what is made of it: HardSwish cuts off what lies
below -3, and a depthwise convolution may read small channels as carefully as large ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import torch
from torch import Tensor

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Granularity, Role
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

_FACTORS: Final = (0.9, 0.75, 0.6, 0.45, 0.3, 0.2)
"""By what an end of a range is multiplied, in this order. Our choice."""

_MOST_MISSES: Final = 2
"""After so many factors in a row that are no better, an end is left."""

_LEAST_GAIN: Final = 1e-2
"""The share by which the distance must fall, so that ranges do not follow its noise. Our choice."""


@torch.no_grad()
def search_ranges(quantizers: Iterable[GatedQuantizer], distance: Callable[[], float]) -> None:
    """Makes the ranges of activations narrower where that brings a distance down.

    Ends are tried one after the other, in the order of the quantizers.

    Args:
        quantizers: The quantizers; only activations of at most 8 bits with one gate are tried.
        distance: Measures how far the result is from the wanted one, with the present ranges.
    """
    searched = [end for quantizer in quantizers for end in _ends(quantizer)]
    if not searched:
        return
    best = distance()
    for end in searched:
        start, kept, misses = end.clone(), end.clone(), 0
        for factor in _FACTORS:
            end.copy_(start * factor)
            now = distance()
            if now < best * (1 - _LEAST_GAIN):
                best, misses = now, 0
                kept.copy_(end)
            else:
                misses += 1
            if misses == _MOST_MISSES:
                break
        end.copy_(kept)


def _ends(quantizer: GatedQuantizer) -> list[Tensor]:
    """The ends of the range that is in use, as views that may be written to."""
    spec = quantizer.spec
    if spec.role is not Role.ACTIVATION or spec.granularity is not Granularity.TENSOR:
        return []
    width = int(quantizer.widths)
    if width not in spec.ladder.quantized or width > INTEGER_KERNEL_BITS:
        return []
    index = spec.range_index(width)
    ends = [quantizer.base_high[index]]
    if quantizer.log_low is not None:
        ends.append(quantizer.base_low[index])
    return [end for end in ends if bool((end != 0).all())]
