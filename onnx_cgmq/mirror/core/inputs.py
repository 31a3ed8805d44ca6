"""The inputs of a mirror, as callers give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from onnx_cgmq.errors import DataError


def named_inputs(
    inputs: Mapping[str, Any] | Tensor, names: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """Inputs by name, on the device where the mirror computes. Batches are moved here alone.

    Args:
        inputs: Tensors by input name, or sequences of tensors; or one tensor, if there is one name.
        names: Names of the inputs.
        device: Where the mirror computes.

    Raises:
        DataError: If an input is missing or unknown.
    """
    if isinstance(inputs, Tensor):
        if len(names) != 1:
            raise DataError(
                f"the graph has {len(names)} inputs; pass a dict with {', '.join(names)}"
            )
        return {names[0]: moved(inputs, device)}
    if set(inputs) != set(names):
        raise DataError(
            f"the graph's inputs are {', '.join(names) or 'none'}; "
            f"got {', '.join(inputs) or 'none'}"
        )
    return {name: moved(value, device) for name, value in inputs.items()}


def moved(value: Any, device: torch.device) -> Any:
    """A value of a graph on a device; what is there already is returned as it is."""
    if isinstance(value, (list, tuple)):
        return [moved(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value
