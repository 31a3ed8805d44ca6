"""Calibrates: fits the range of every tensor for every width, by least squared error on data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.data.source import open_data
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.bias_room import leave_room_for_biases
from onnx_cgmq.learn.malloc import FreedMemory
from onnx_cgmq.learn.memory import bytes_per_sample, samples_that_fit
from onnx_cgmq.learn.pair_room import leave_room_for_pairs
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.observed import Observer
from onnx_cgmq.mirror.torch_state import plain_torch


@plain_torch()
def calibrate(mirror: Mirror, data: Any, *, samples: int = 1024, batch_size: int = 128) -> None:
    """Fits the ranges of all quantizers.

    Args:
        mirror: The mirror of a gated graph; its gates stay as they are.
        data: Samples in any form that :func:`~onnx_cgmq.api.pipeline.quantize` takes, of which some
            are used that are evenly spread.
        samples: How many samples to use.
        batch_size: Samples in a batch; fewer are taken if the activations need much memory.

    Raises:
        DataError: The data can't be read or does not fit the model.
    """
    data = open_data(data, mirror.model)
    for name, parameter in mirror.value_parameters.items():
        if name in mirror.quantizers:
            mirror.quantizers[name].fit(parameter)
    calibrate_activations(mirror, data, samples=samples, batch_size=batch_size)
    leave_room_for_biases(mirror)
    leave_room_for_pairs(mirror)


@plain_torch()
def calibrate_activations(mirror: Mirror, data: Samples, *, samples: int, batch_size: int) -> None:
    """Fits the ranges of activations, with one batch of the data in memory at a time.

    The arguments are those of :func:`calibrate`.
    """
    activations = mirror.tensors_of(Role.ACTIVATION)
    count = min(samples, len(data))
    if activations:
        fits = samples_that_fit(bytes_per_sample(mirror, data, activations))
        batch_size = min(batch_size, fits)
    batches = -(-count // batch_size)
    seen = {name: Observer(mirror.quantizers[name].spec, batches) for name in activations}
    freed = FreedMemory()
    viewers = {name: observer.add for name, observer in seen.items()}
    with torch.no_grad(), mirror.unquantized(), mirror.shown(viewers):
        spread = np.linspace(0, len(data) - 1, count).astype(np.int64)
        for batch in data.batches(batch_size, order=spread):
            mirror(tensors(batch.inputs))
            freed.limit()
    for name in activations:
        mirror.quantizers[name].fit(seen.pop(name).observed())
