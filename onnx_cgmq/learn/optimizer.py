"""The optimizer of weights, biases and ranges, and its learning rates."""

from __future__ import annotations

import math

import torch

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.settings.config import Config

_WARM_UP_SHARE = 0.02
"""Share of the training steps in which learning rates rise from zero, because Adam's moments are
noise at first. Our choice."""

_LARGEST_RATE = 2e-3
"""The largest peak learning rate, which shallow networks get. Our choice, made on LeNet-5."""

_RATE_OF_ALL_LAYERS = 8e-3
"""The peak learning rate times the number of weight tensors. Our choice, made on LeNet-5 and
ResNet-20."""


class Optimizer:
    """Updates weights, biases and ranges with Adam.

    Exported graphs have their normalisation folded away, and diverge under momentum SGD. Only
    tensors with a quantizer learn: other constants of a graph (epsilons, masks) are not weights.

    Attributes:
        peaks: The peak learning rates of weights and biases, and of ranges.
        adam: The optimizer of PyTorch.
    """

    def __init__(self, mirror: Mirror, config: Config) -> None:
        """Selects what learns, and the peak learning rates."""
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
        """Deletes the gradients."""
        self.adam.zero_grad(set_to_none=True)

    def step(self, factor: float) -> bool:
        """Updates at ``factor`` times the peak learning rates, unless a gradient is not finite.

        An update with NaN or infinity would destroy everything that was learned.

        Returns:
            Whether there was an update.
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
    """Returns the learning rate of a training step as a share of the peak learning rate.

    It rises at first, stays at the peak while gates move, and then follows a cosine to zero.

    Args:
        step: Number of training steps made so far.
        guided: Number of training steps in which gates move.
        total: Number of training steps of the whole run.
    """
    warm_up = min(1.0, (step + 1) / max(1.0, _WARM_UP_SHARE * total))
    after = max(0, step - guided) / max(1, total - guided)
    return warm_up * 0.5 * (1 + math.cos(math.pi * min(1.0, after)))


def default_learning_rate(mirror: Mirror) -> float:
    """Returns the default of the peak learning rate of weights and biases.

    It is 8e-3 over the number of weight tensors, at most 2e-3. Adam moves every weight by about the
    learning rate, whatever its gradient, and the effects on the output add up over the layers. So a
    rate that suits LeNet-5 (4 weight tensors) ruins a ResNet-20 with folded normalisation (22
    weight tensors) within an epoch.
    """
    roles = [quantizer.spec.role for quantizer in mirror.quantizers.values()]
    return min(_LARGEST_RATE, _RATE_OF_ALL_LAYERS / max(1, roles.count(Role.WEIGHT)))
