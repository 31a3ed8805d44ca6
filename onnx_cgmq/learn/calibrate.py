"""Calibration: the range of every width of every tensor, by least squared error on data."""

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

_KEEP = 1 << 18  # values of an activation


def calibrate(mirror: Mirror, data: Samples, *, samples: int = 1024, batch_size: int = 128) -> None:
    """Fits the ranges of all quantizers, streaming over the data.

    Args:
        mirror: The mirror of a gated graph; its gates are left as they are.
        data: Samples; ``samples`` of them are used, evenly spread.
        samples: How many to look at.
        batch_size: Samples at a time.
    """
    for name, parameter in mirror.value_parameters.items():
        if name in mirror.quantizers:
            mirror.quantizers[name].fit(parameter)
    activations = [name for name, q in mirror.quantizers.items() if q.spec.role is Role.ACTIVATION]
    count = min(samples, len(data))
    per_batch = max(1, _KEEP * batch_size // max(1, count))
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
    """Part of an activation: whole samples for ``channel`` gates, else values at a stride.

    What is not finite (rows of a softmax in which everything is masked) has no place on a grid.
    """
    if spec.has_channels:
        per_sample = max(1, value[0].numel())
        part = value[: max(1, keep // per_sample)].detach().clone()
    else:
        flat = value.detach().reshape(-1)
        part = flat[:: max(1, flat.numel() // keep)].clone()
    return part.nan_to_num_(0.0, 0.0, 0.0)
