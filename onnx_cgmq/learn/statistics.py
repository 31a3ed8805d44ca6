"""Running statistics of one quantizer: what the directions are made of, from the backward pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec

MOMENTUM = 0.9
"""Share of the past in a running mean: it forgets a batch within some ten others. Our choice, as
momentum of optimizers and of batch normalisation has it."""


class RunningStatistics:
    """Gradients and magnitudes of a quantized tensor, per gate, as running means over batches.

    Attributes:
        gradient: Mean of ``|dL/dx_q|`` over the batch and the elements of a gate (per-sample loss).
        magnitude: Mean of ``|x|`` likewise.
        gradient_square: Sum of squared gradients over the elements of a gate, in units that are
            the same for weights and activations (up to one factor for the whole model).
    """

    def __init__(
        self, spec: QuantizerSpec, wanted: Collection[str], momentum: float = MOMENTUM
    ) -> None:
        """Starts empty.

        Args:
            spec: The quantizer.
            wanted: Names of the attributes to keep; the others stay ``None``.
            momentum: Share of the past.
        """
        self._spec = spec
        self._wanted = frozenset(wanted)
        self._momentum = momentum
        self._updates = 0
        self.gradient: Tensor | None = None
        self.magnitude: Tensor | None = None
        self.gradient_square: Tensor | None = None

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Takes a tensor and its gradient, same shape, from a backward pass."""
        is_activation = self._spec.role is Role.ACTIVATION
        batch = value.shape[0] if is_activation and value.dim() else 1
        shape = self._spec.gate_shape
        items = max(1, value.numel() // max(1, _count(shape)))
        # The loss is a mean over the batch: times the batch, a sample's own gradient.
        if "gradient" in self._wanted:
            mean = _fold(gradient.abs(), shape) * (batch / items)
            self.gradient = self._mix(self.gradient, mean)
        if "magnitude" in self._wanted:
            self.magnitude = self._mix(self.magnitude, _fold(value.abs(), shape) / items)
        if "gradient_square" in self._wanted:
            squares = _fold(gradient.square(), shape)
            self.gradient_square = self._mix(self.gradient_square, squares)
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {
            "updates": self._updates,
            "gradient": self.gradient,
            "magnitude": self.magnitude,
            "gradient_square": self.gradient_square,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`; takes copies, since the means are updated in place."""
        self._updates = state["updates"]
        for name in ("gradient", "magnitude", "gradient_square"):
            value: Tensor | None = state[name]
            setattr(self, name, None if value is None else value.clone())

    def _mix(self, past: Tensor | None, new: Tensor) -> Tensor:
        if not torch.isfinite(new).all():  # of a step that is left out; it would stay for ever
            return torch.zeros_like(new) if past is None else past
        if past is None:
            return new
        # A plain mean at first, so that the first batch does not weigh too much.
        share = max(1 - self._momentum, 1 / (self._updates + 1))
        return past.lerp_(new, share)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _fold(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sums over the elements of every gate."""
    if not shape:
        return tensor.sum()
    return tensor.sum_to_size(shape) if tuple(tensor.shape) != shape else tensor
