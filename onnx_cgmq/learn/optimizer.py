"""What learns how fast: the optimizer of weights, biases and ranges, and its learning rates."""

from __future__ import annotations

import math

import torch

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.settings.config import Config

_WARM_UP_SHARE = 0.02
"""Part of the steps in which rates rise from zero: Adam's moments are noise at first."""

_LARGEST_RATE = 2e-3
"""Peak learning rate of shallow networks. Our choice, made on LeNet-5."""

_RATE_OF_ALL_LAYERS = 8e-3
"""Peak learning rate, summed over the weight tensors. Our choice, made on LeNet-5 and ResNet-20."""


class Optimizer:
    """Adam for weights, biases and ranges, each group at its share of a schedule.

    Adam, since graphs arrive with normalisation folded away and diverge under momentum SGD. Only
    tensors with a quantizer learn: other constants of a graph (epsilons, masks) are not weights.
    """

    def __init__(self, mirror: Mirror, config: Config) -> None:
        """Chooses what learns, and the peak learning rates."""
        weights, ranges = [], []
        for name, parameter in mirror.value_parameters.items():
            parameter.requires_grad_(name in mirror.quantizers)
            if name in mirror.quantizers:
                weights.append(parameter)
        for quantizer in mirror.quantizers.values():
            ranges += list(quantizer.parameters())
        rate = config.learning_rate or default_learning_rate(mirror)
        self.peaks = (rate, config.range_learning_rate)
        groups = [{"params": weights}, {"params": ranges}]
        self.adam = torch.optim.Adam(groups, lr=rate, fused=True)

    def clear(self) -> None:
        """Forgets the gradients."""
        self.adam.zero_grad(set_to_none=True)

    def step(self, factor: float) -> bool:
        """Learns at ``factor`` times the peak rates, unless a gradient is not finite.

        Returns:
            Whether it did: an update with NaN or infinity would lose all that was learned.
        """
        gradients = [
            parameter.grad
            for group in self.adam.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            return False
        for group, peak in zip(self.adam.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        self.adam.step()
        return True


def schedule(step: int, guided: int, total: int) -> float:
    """Factor of the peak learning rate at a step: warm up, hold while gates move, then cosine.

    Args:
        step: Steps made so far.
        guided: Steps in which gates move.
        total: Steps of the whole run.
    """
    warm_up = min(1.0, (step + 1) / max(1.0, _WARM_UP_SHARE * total))
    after = max(0, step - guided) / max(1, total - guided)
    return warm_up * 0.5 * (1 + math.cos(math.pi * min(1.0, after)))


def default_learning_rate(mirror: Mirror) -> float:
    """Peak learning rate of weights: 8e-3 over the number of weight tensors, at most 2e-3.

    Adam moves every weight by about the learning rate, whatever its gradient, so what one step does
    to the output adds up over the layers: what suits a LeNet-5 (4 weights) ruins a ResNet-20 with
    folded normalisation (22 weights) within an epoch.
    """
    roles = [quantizer.spec.role for quantizer in mirror.quantizers.values()]
    return min(_LARGEST_RATE, _RATE_OF_ALL_LAYERS / max(1, roles.count(Role.WEIGHT)))
