"""Running statistics of one quantizer's gradients and values, of which importance is made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.learn import processes

MOMENTUM = 0.9
"""Share of the past in a running mean, which thus forgets a batch within some ten later ones. Our
choice; momentum of optimizers and of batch normalisation often has this value."""


@dataclass
class _Sums:
    """Sums over the micro-batches of a batch.

    Attributes:
        of: The sum of each wanted statistic, of the gate's shape, by name.
        rows: Number of samples.
        items: Number of elements of each gate.
    """

    of: dict[str, Tensor] = field(default_factory=dict)
    rows: int = 0
    items: int = 0

    def add_up(self) -> None:
        """Adds the sums of all processes."""
        self.of = {name: processes.total(value) for name, value in self.of.items()}
        self.rows, self.items = processes.total(torch.tensor([self.rows, self.items])).tolist()


class RunningStatistics:
    """Running means over batches of gradients and magnitudes of a quantized tensor, for each gate.

    All have the gate's shape, or are ``None`` before the first batch.

    Attributes:
        gradient: Mean of ``|dL/dx_q|`` over the batch and the elements of a gate, where ``L`` is
            the loss of one sample and ``x_q`` the quantized tensor.
        magnitude: Mean of ``|x|`` over the batch and the elements of a gate, for the tensor ``x``.
        gradient_square: Sum of squared gradients of the batch's mean loss, over the batch and the
            elements of a gate. Up to one factor for the whole model, it has the same unit for
            weights and activations.
    """

    def __init__(
        self, spec: QuantizerSpec, wanted: Collection[str], momentum: float = MOMENTUM
    ) -> None:
        """Starts without statistics.

        Args:
            spec: Describes the quantizer.
            wanted: Names of the statistics to keep; the others stay ``None``.
            momentum: Share of the past in a running mean.
        """
        self._spec = spec
        self._wanted = frozenset(wanted)
        self._momentum = momentum
        self._updates = 0
        self._gradient: Tensor | None = None  # of a weight, over the micro-batches so far
        self.expect(1)
        self.gradient: Tensor | None = None
        self.magnitude: Tensor | None = None
        self.gradient_square: Tensor | None = None

    def expect(self, micro_batches: int, is_split: bool = False) -> None:
        """Prepares for a batch with so many backward passes, one for each micro-batch.

        Args:
            micro_batches: How many there are.
            is_split: Whether each of several processes has some rows of the batch.
        """
        self._is_split = is_split
        self._left = self._micro_batches = micro_batches
        self._sums, self._gradient = _Sums(), None

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Adds a tensor and its gradient, which have the same shape, from a backward pass."""
        if self._left == 0:
            self.expect(self._micro_batches, self._is_split)
        self._left -= 1
        is_activation = self._spec.role is Role.ACTIVATION
        if not is_activation and self._micro_batches > 1:
            if self._gradient is not None:
                gradient = self._gradient + gradient
            self._gradient = gradient
            if self._left:
                return
        if not is_activation and self._is_split:
            gradient = processes.total(gradient)
        sums = self._sums
        sums.rows += value.shape[0] if is_activation and value.dim() else 1
        sums.items += max(1, value.numel() // max(1, _element_count(self._spec.gate_shape)))
        for name, values in (
            ("gradient", gradient.abs),
            ("magnitude", value.abs),
            ("gradient_square", gradient.square),
        ):
            if name in self._wanted:
                sums.of[name] = sums.of.get(name, 0.0) + _sum_per_gate(
                    values(), self._spec.gate_shape
                )
        if self._left:
            return
        if is_activation and self._is_split:
            sums.add_up()
        self._update(sums)

    def _update(self, sums: _Sums) -> None:
        # The loss is a mean over the batch. Times the batch size it gives the gradient of a sample.
        if "gradient" in self._wanted:
            mean = sums.of["gradient"] * (sums.rows / sums.items)
            self.gradient = self._updated_mean(self.gradient, mean)
        if "magnitude" in self._wanted:
            mean = sums.of["magnitude"] / sums.items
            self.magnitude = self._updated_mean(self.magnitude, mean)
        if "gradient_square" in self._wanted:
            squares = sums.of["gradient_square"]
            self.gradient_square = self._updated_mean(self.gradient_square, squares)
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        return {
            "updates": self._updates,
            "gradient": self.gradient,
            "magnitude": self.magnitude,
            "gradient_square": self.gradient_square,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restores a state of :meth:`state_dict`; it is copied, as means are updated in place."""
        self._updates = state["updates"]
        for name in ("gradient", "magnitude", "gradient_square"):
            value: Tensor | None = state[name]
            setattr(self, name, None if value is None else value.to(device, copy=True))

    def _updated_mean(self, past: Tensor | None, new: Tensor) -> Tensor:
        if not torch.isfinite(new).all():  # a mean would never recover; the step is skipped anyway
            return torch.zeros_like(new) if past is None else past
        if past is None:
            return new
        # At first it is a plain mean, so that the first batch does not weigh too much.
        share = max(1 - self._momentum, 1 / (self._updates + 1))
        return past.lerp_(new, share)


def _element_count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _sum_per_gate(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sums a tensor over the batch and the elements of each gate."""
    if not shape:
        return tensor.sum()
    return tensor.sum_to_size(shape) if tuple(tensor.shape) != shape else tensor
