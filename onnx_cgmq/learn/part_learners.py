"""All that learns in a part of a network: weights by sign, biases and ranges by Adam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.blocks import of_elements
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

_REACH: Final = 0.5
"""How many steps of its grid a weight may move: to the next code up or down, no further."""

_REACHES: Final = 2.0
"""How often a weight can cross its reach in all training steps together, as the rate falls to zero.
Our choice."""

_LARGEST_SIGN_RATE: Final = 0.05
"""The most steps of its grid by which a weight moves in one training step. Our choice."""

_RANGE_RATE: Final = 1e-3
"""Peak learning rate of the logarithm of ranges. Our choice."""

_BIAS_RATE: Final = 1e-3
"""Peak learning rate of biases, times the largest bias of the tensor. Our choice."""


@dataclass(frozen=True)
class _Rounding:
    """A weight that learns how to be rounded.

    Attributes:
        quantizer: Its quantizer.
        weight: Its values.
        start: Its values before.
        step: The step of its grid, which broadcasts to it.
    """

    quantizer: GatedQuantizer
    weight: nn.Parameter
    start: Tensor
    step: Tensor

    @torch.no_grad()
    def move(self, rate: float) -> None:
        """Moves every element by ``rate`` steps against the sign of its gradient, within reach."""
        if self.weight.grad is None:
            return
        reach = _REACH * self.step
        self.weight.sub_(self.weight.grad.sign_().mul_(self.step * rate))
        self.weight.clamp_(self.start - reach, self.start + reach)


class PartLearners:
    """All that learns in a part: weights by sign, biases and ranges by Adam."""

    def __init__(
        self, mirror: Mirror, quantizers: Mapping[str, GatedQuantizer], steps: int
    ) -> None:
        """Collects what learns.

        Args:
            mirror: The mirror.
            quantizers: The quantizers of the part, by the name of the tensor that they quantize.
            steps: Number of training steps, for the rate of weights.
        """
        self._sign_rate = min(_LARGEST_SIGN_RATE, 2 * _REACH * _REACHES / max(1, steps))
        self._weights: list[_Rounding] = []
        groups: list[dict[str, Any]] = []
        for name, quantizer in quantizers.items():
            parameter = mirror.value_parameter(name)
            role = quantizer.spec.role
            if parameter is not None:
                parameter.requires_grad_(True)
            if role is Role.WEIGHT and parameter is not None:
                grid, _, _ = quantizer.selected()
                if bool((grid.step > 0).all()):
                    start = parameter.detach().clone()
                    step = of_elements(quantizer.spec, grid.step)
                    self._weights.append(_Rounding(quantizer, parameter, start, step))
            elif role is Role.BIAS and parameter is not None:
                largest = float(parameter.detach().abs().amax()) if parameter.numel() else 0.0
                groups.append({"params": [parameter], "peak": _BIAS_RATE * largest})
            elif role is Role.ACTIVATION:
                groups.append({"params": list(quantizer.parameters()), "peak": _RANGE_RATE})
        self._adam = torch.optim.Adam(groups, lr=0.0) if groups else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing learns."""
        return not self._weights and self._adam is None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that learns."""
        ranges = self._adam.param_groups if self._adam is not None else []
        return [r.weight for r in self._weights] + [p for g in ranges for p in g["params"]]

    def state(self) -> list[Tensor]:
        """A copy of all that learns, for :meth:`restore`."""
        return [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def restore(self, state: list[Tensor]) -> None:
        """Goes back to a state."""
        for parameter, value in zip(self.parameters, state, strict=True):
            parameter.copy_(value)

    def clear(self) -> None:
        """Deletes all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def keep_codes(self) -> None:
        """Puts every weight on its grid, so that small changes of a step leave its codes."""
        for rounding in self._weights:
            rounding.weight.copy_(rounding.quantizer(rounding.weight)[0])

    def step(self, factor: float) -> None:
        """Moves everything, at ``factor`` times the peak rates, which fall to zero.

        Nothing moves if a gradient is not finite.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            return
        for rounding in self._weights:
            rounding.move(self._sign_rate * factor)
        if self._adam is not None:
            for group in self._adam.param_groups:
                group["lr"] = group["peak"] * factor
            self._adam.step()
