"""Computes the importance of every gate, and the direction in which the gate moves.

In the paper (CGMQ, arXiv 2409.20138) directions are made of gradients G and magnitudes M. These
differ by orders of magnitude between layers and models, so each model needs a learning rate of its
own for the gates. Our choice: the logarithm of the importance is standardised over all gates of the
model and squashed. Then only order and relative spread matter, and one speed suits every model.
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
"""The smallest magnitude of a direction. It is not 0, so that every gate falls while a bound is
broken, and the bound is reached. Our choice."""

_PRUNED_NOISE = 1.57
"""``mean(x^2) / mean(|x|)^2`` of normally distributed ``x``, which is pi / 2. With it, the mean
square of pruned values follows from their mean magnitude."""


def wanted_statistics(direction: Direction, prunes: bool) -> tuple[str, ...]:
    """Returns the names of the running statistics of which importance is made.

    Args:
        direction: What importance is made of.
        prunes: Whether the gates may select width 0.
    """
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
    """Returns how important it is to keep each gate at the wider of two widths.

    For ``gradient``, ``gradient_magnitude`` and ``gradient_times_magnitude`` it is G, G + M and
    G * M, where G is the mean magnitude of the gradient over a gate's elements and M that of the
    values (CGMQ, arXiv 2409.20138).

    For ``fisher`` it is the expected increase of the loss, to second order:
    ``1/2 * sum(g^2 * (x_upper - x_lower)^2)`` over a gate's elements. ``g`` is the gradient, whose
    square estimates the second derivative (the diagonal of the empirical Fisher matrix).
    ``x_upper`` and ``x_lower`` are the values quantized at the two widths. For activations, and for
    gates with several elements, the increase of the mean squared error takes the place of the
    squared change; it was measured when the ranges were fitted. All of this is our choice.

    Args:
        direction: What importance is made of.
        quantizer: The quantizer of the gates.
        statistics: Statistics of past backward passes.
        upper: The wider widths, int64 of the gate's shape.
        lower: The narrower widths, int64 of the gate's shape.
        values: The values of a weight or bias; ``None`` for an activation.

    Returns:
        Importances, float32 of the gate's shape, none negative. They are 0 before the first
        backward pass.
    """
    shape = quantizer.spec.gate_shape
    zero = torch.zeros(shape, device=upper.device)
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
    """Returns the mean squared error of quantization at the given widths, of the gate's shape."""
    noise = torch.zeros(widths.shape, device=widths.device)
    for index, width in enumerate(quantizer.spec.ladder.quantized):
        error = quantizer.noise[index]
        if quantizer.spec.channel_ranges:  # the error is per channel, but one gate has all channels
            error = error.mean()
        noise = torch.where(widths == width, error, noise)
    return torch.where(widths == 0, _PRUNED_NOISE * magnitude.square(), noise)


def _rounded(quantizer: GatedQuantizer, values: Tensor, widths: Tensor) -> Tensor:
    """Quantizes a weight or bias with a gate per element, whose widths all have one range."""
    high = quantizer.high.detach()[0]
    result = values.detach()
    for width in quantizer.spec.ladder.quantized:
        step = 2 * high / (2**width - 1)
        limit = 2 ** (width - 1) - 1
        at_width = torch.round(values.detach() / step).clamp_(-limit, limit).mul_(step)
        result = torch.where(widths == width, at_width, result)
    return torch.where(widths == 0, torch.zeros_like(result), result)


_FLOOR_SHARE = 1e-6
"""Share of a tensor's mean importance that is added to each importance before the logarithm. Gates
without any importance are then last, but not infinitely far from the others. Our choice."""

_SMALLEST = 1e-30
"""Added to importances before the logarithm, which stays finite if a whole tensor has none."""

_LEAST_SPREAD = 0.5
"""The smallest standard deviation by which logarithms of importances are divided. If gates hardly
differ, noise must not decide their order. Our choice."""


def standardise(importances: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Squashes the importances of all gates of a model to (0, 1), whatever their scale and spread.

    Args:
        importances: Importances of every tensor's gates by tensor name, none negative.

    Returns:
        ``sigmoid((log I - mean) / deviation)`` of each importance ``I``, by tensor name. ``mean``
        and ``deviation`` (standard deviation) are those of ``log I`` over all gates.
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
    """Returns the directions of gates, which move by ``gate <- gate - speed * direction``.

    Args:
        ranked: Standardised importances in (0, 1).
        satisfied: Whether all bounds are kept.

    Returns:
        While a bound is broken: positive directions, smaller for more important gates, and at
        least ``MIN_DIRECTION``. While all bounds are kept: negative directions, larger in magnitude
        for more important gates, and at least ``MIN_DIRECTION`` in magnitude.
    """
    if satisfied:
        return -(MIN_DIRECTION + (1 - MIN_DIRECTION) * ranked)
    return MIN_DIRECTION + (1 - MIN_DIRECTION) * (1 - ranked)
