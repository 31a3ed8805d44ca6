"""Importance of every gate, and the direction that the constraint gives it.

The paper's directions are built from gradients G and magnitudes M; raw, they differ by many orders
of magnitude between layers and models, so that no gate learning rate fits two of them. Here the
logarithm of the importance is standardised over all gates of the model and squashed: only the order
and the relative spread matter, and one speed serves every model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from onnx_cgmq.contract.bits import Granularity, Role
from onnx_cgmq.learn.statistics import RunningStatistics
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.settings.config import Direction

MIN_DIRECTION = 0.1
"""Directions are bounded away from 0, so that a violated bound is always reached."""

_PRUNED_NOISE = 1.57  # mean square over squared mean magnitude, for a normal distribution


def wanted_statistics(direction: Direction, prunes: bool) -> tuple[str, ...]:
    """The running statistics that a direction is made of."""
    if direction is Direction.FISHER:
        return ("gradient_square", "magnitude") if prunes else ("gradient_square",)
    return ("gradient",) if direction is Direction.GRADIENT else ("gradient", "magnitude")


def importance(
    direction: Direction,
    quantizer: GatedQuantizer,
    statistics: RunningStatistics,
    upper: Tensor,
    lower: Tensor,
    values: Tensor | None,
) -> Tensor:
    """Importance of keeping every gate at the wider of two widths.

    Args:
        direction: What it is made of.
        quantizer: The quantizer of the gates.
        statistics: What the backward passes showed.
        upper: Wider widths, int64, the gate's shape.
        lower: Narrower widths, int64, the gate's shape.
        values: The tensor itself, for weights and biases.

    Returns:
        Non-negative float32 of the gate's shape. For ``fisher`` the expected increase of the loss,
        ``1/2 * sum(g**2 * (x_upper - x_lower)**2)``; for the others G, G + M or G * M.
    """
    shape = quantizer.spec.gate_shape
    zero = torch.zeros(shape)
    gradient = zero if statistics.gradient is None else statistics.gradient
    magnitude = zero if statistics.magnitude is None else statistics.magnitude
    if direction is Direction.GRADIENT:
        return gradient
    if direction is Direction.GRADIENT_MAGNITUDE:
        return gradient + magnitude
    if direction is Direction.GRADIENT_TIMES_MAGNITUDE:
        return gradient * magnitude
    if statistics.gradient_square is None:
        return zero
    is_element_weight = (
        quantizer.spec.granularity is Granularity.ELEMENT
        and quantizer.spec.role is not Role.ACTIVATION
    )
    if is_element_weight and values is not None:
        change = (_rounded(quantizer, values, lower) - _rounded(quantizer, values, upper)).square()
    else:
        change = (
            _noise(quantizer, magnitude, lower) - _noise(quantizer, magnitude, upper)
        ).clamp_min(0)
    return 0.5 * statistics.gradient_square * change


def _noise(quantizer: GatedQuantizer, magnitude: Tensor, widths: Tensor) -> Tensor:
    """Mean squared quantization error at the given widths, the gate's shape."""
    noise = torch.zeros(widths.shape)
    for index, width in enumerate(quantizer.spec.ladder.quantized):
        error = quantizer.noise[index]
        if quantizer.spec.channel_ranges:  # one gate for all of them
            error = error.mean()
        noise = torch.where(widths == width, error, noise)
    return torch.where(widths == 0, _PRUNED_NOISE * magnitude.square(), noise)


def _rounded(quantizer: GatedQuantizer, values: Tensor, widths: Tensor) -> Tensor:
    """Element weights quantized at the given widths (shared range)."""
    high = quantizer.high.detach()[0]
    result = values.detach()
    for width in quantizer.spec.ladder.quantized:
        step = 2 * high / (2**width - 1)
        limit = 2 ** (width - 1) - 1
        at_width = torch.round(values.detach() / step).clamp_(-limit, limit).mul_(step)
        result = torch.where(widths == width, at_width, result)
    return torch.where(widths == 0, torch.zeros_like(result), result)


_FLOOR_SHARE = 1e-6
"""Share of a tensor's mean importance that is added before the logarithm: gates without any
importance are the last of all, but not infinitely far from the others."""

_SMALLEST = 1e-30
"""Keeps the logarithm finite where a whole tensor has no importance."""

_LEAST_SPREAD = 0.5
"""Smallest deviation of log importances to divide by: where gates hardly differ, noise must not be
taken for rank. Our choice, like the two above."""


def standardise(importances: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Squashes importances of all gates of a model to (0, 1), free of scale and spread.

    Args:
        importances: Non-negative, by tensor name.

    Returns:
        ``sigmoid((log I - mean) / std)`` by tensor name, with mean and deviation over all gates.
    """
    logs = {
        name: torch.log(values + _FLOOR_SHARE * values.mean() + _SMALLEST)
        for name, values in importances.items()
    }
    if not logs:
        return {}
    flat = torch.cat([log.reshape(-1) for log in logs.values()])
    mean = flat.mean()
    deviation = flat.std(unbiased=False).clamp_min(_LEAST_SPREAD)
    return {name: torch.sigmoid((log - mean) / deviation) for name, log in logs.items()}


def gate_direction(ranked: Tensor, satisfied: bool) -> Tensor:
    """Direction of gates: ``g <- g - eta * direction``.

    Args:
        ranked: Standardised importance in (0, 1).
        satisfied: Whether the cost is within the bound.

    Returns:
        Violated: positive, at least ``MIN_DIRECTION``, smaller for more important gates.
        Satisfied: negative, larger in magnitude for more important gates.
    """
    if satisfied:
        return -(MIN_DIRECTION + (1 - MIN_DIRECTION) * ranked)
    return MIN_DIRECTION + (1 - MIN_DIRECTION) * (1 - ranked)
