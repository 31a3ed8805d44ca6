"""Measures how much the outputs depend on every quantized tensor, without labels.

At the float model itself the gradient of a distance to the float model is zero, so it tells
nothing. What counts is the curvature of that distance. Its diagonal is the mean square of the
gradient of a random projection of the outputs (Hutchinson's estimate of the Gauss-Newton matrix;
for class scores the projection is drawn as for the Fisher matrix: a class by its probability).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from onnx_cgmq.data.samples import Samples
from onnx_cgmq.learn.batches import tensors
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.losses import TEMPERATURE, ClassOutput, are_probabilities, log_of

_LEAST_SCALE = 1e-20
"""The smallest mean square by which a projection is divided."""


def measure_sensitivity(
    guide: Guide,
    data: Samples,
    names: tuple[str, ...],
    classes: ClassOutput | None,
    *,
    samples: int = 256,
    batch_size: int = 32,
) -> None:
    """Fills the guide's statistics of gradients, with all quantizers passing values by.

    Args:
        guide: The guide of a calibrated mirror.
        data: The samples, of which some are used that are evenly spread.
        names: The tensors that the loss compares.
        classes: The output with class scores, if there is one.
        samples: How many samples to use.
        batch_size: Samples in a batch.
    """
    mirror = guide.mirror.eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in mirror.value_parameters.values():
        parameter.requires_grad_(True)
    order = np.linspace(0, len(data) - 1, min(samples, len(data))).astype(np.int64)
    with mirror.unquantized(), guide.observing():
        for batch in data.batches(min(batch_size, len(order)), order=order):
            mirror.zero_grad(set_to_none=True)
            outputs = mirror.run(tensors(batch.inputs), names)
            projected = projection(outputs, classes, generator)
            if projected.requires_grad:
                projected.backward()  # type: ignore[no-untyped-call]
    mirror.zero_grad(set_to_none=True)
    mirror.train()


def projection(
    outputs: Mapping[str, Tensor], classes: ClassOutput | None, generator: torch.Generator
) -> Tensor:
    """Returns a random projection of the outputs, whose squared gradient is the curvature.

    Args:
        outputs: Tensors that the loss compares, by name, for a batch.
        classes: The output with class scores, if there is one.
        generator: Draws the projection.
    """
    total = torch.zeros(())
    for name, value in outputs.items():
        if not value.is_floating_point() or not value.numel():
            continue
        if classes is not None and name == classes.name:
            total = total + _log_likelihood(classes.logits(outputs), generator)
        elif value.dim() > 2 and are_probabilities(value.detach()):
            total = total + _log_likelihood(log_of(value), generator)
        else:
            known = torch.isfinite(value.detach())
            value = torch.where(known, value, 0.0)
            scale = (
                value.detach().square().sum() / len(value) if value.dim() else value.detach() ** 2
            )
            noise = torch.randn(value.shape, generator=generator)
            total = total + (value * noise).sum() * (2 / scale.clamp_min(_LEAST_SCALE)).sqrt()
    return total


def _log_likelihood(logits: Tensor, generator: torch.Generator) -> Tensor:
    """The log-likelihood of classes drawn by their probability, at the temperature of the loss."""
    logits = torch.where(torch.isfinite(logits.detach()), logits, -1e9)
    logs = torch.log_softmax(logits / TEMPERATURE, dim=-1)
    flat = logs.reshape(-1, logs.shape[-1])
    drawn = torch.multinomial(flat.detach().exp(), 1, generator=generator)
    rows = flat.shape[0] // max(1, logits.shape[0])
    return flat.gather(1, drawn).sum() * TEMPERATURE / max(1, rows) ** 0.5
