"""How far values are from those of the float model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnx_cgmq.learn import processes

Key = TypeVar("Key")

_LEAST_SQUARE: Final = 1e-20
"""The smallest mean square by which an error is divided."""


def distance(
    found: Mapping[Key, Any], wanted: Mapping[Key, Any], keys: Iterable[Key], share: float = 1.0
) -> Tensor:
    """The sum of the squared errors of some values, each relative to its mean square.

    Only floating point values count, of the same shape, and of these the elements that are finite
    in ``wanted``.

    Args:
        found: The values by key.
        wanted: Those of the float model.
        keys: The keys of the values that are compared.
        share: The share of a batch that these values are of, if processes have a share each. What
            they get adds up to the distance for the whole batch.
    """
    total = torch.zeros(())
    for key in keys:
        target, given = wanted[key], found[key]
        if not isinstance(target, Tensor) or not target.is_floating_point() or not target.numel():
            continue
        if target.shape != given.shape:  # the data decide how many boxes there are
            continue
        if not torch.isfinite(target.sum()):
            known = torch.isfinite(target)
            given, target = torch.where(known, given, 0.0), torch.where(known, target, 0.0)
        square = target.square().mean()
        if share < 1:
            square = processes.total(square * share)
        error = F.mse_loss(given, target) / square.clamp_min(_LEAST_SQUARE)
        total = total + (error * share if share < 1 else error)
    return total
