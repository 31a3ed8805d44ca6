"""Calibrates: fits the range of every tensor for every width, by least squared error on data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.data.source import Samples
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.bias_room import leave_room_for_biases
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.torch_state import plain_torch

_MOST_VALUES = 1 << 18
"""About how many values of an activation its ranges are fitted to. Our choice, for memory."""


@plain_torch()
def calibrate(mirror: Mirror, data: Samples, *, samples: int = 1024, batch_size: int = 128) -> None:
    """Fits the ranges of all quantizers, with one batch of the data in memory at a time.

    Args:
        mirror: The mirror of a gated graph; its gates stay as they are.
        data: The samples, of which some are used that are evenly spread.
        samples: How many samples to use.
        batch_size: Samples in a batch.
    """
    for name, parameter in mirror.value_parameters.items():
        if name in mirror.quantizers:
            mirror.quantizers[name].fit(parameter)
    activations = [name for name, q in mirror.quantizers.items() if q.spec.role is Role.ACTIVATION]
    count = min(samples, len(data))
    per_batch = max(1, _MOST_VALUES * batch_size // max(1, count))
    kept: dict[str, list[Tensor]] = {name: [] for name in activations}
    with torch.no_grad():
        spread = np.linspace(0, len(data) - 1, count).astype(np.int64)
        for batch in data.batches(batch_size, order=spread):
            values = mirror.run(tensors(batch.inputs), activations)
            for name in activations:
                kept[name].append(_thin(values[name], mirror.quantizers[name].spec, per_batch))
    for name in activations:
        mirror.quantizers[name].fit(torch.cat(kept[name]))
    leave_room_for_biases(mirror)


def _thin(value: Tensor, spec: QuantizerSpec, keep: int) -> Tensor:
    """Returns about ``keep`` values of an activation.

    They are whole samples if the activation has channels, and else every n-th value. Values that
    are not finite (rows of a softmax in which everything is masked) have no place on a grid, and
    count as 0.
    """
    if spec.has_channels:
        per_sample = max(1, value[0].numel())
        part = value[: max(1, keep // per_sample)].detach().clone()
    else:
        flat = value.detach().reshape(-1)
        part = flat[:: max(1, flat.numel() // keep)].clone()
    return part.nan_to_num_(0.0, 0.0, 0.0)
