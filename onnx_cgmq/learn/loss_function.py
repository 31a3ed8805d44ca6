"""What a loss is, and how a loss of the user's own is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from onnx_cgmq.data.objects import import_object, is_object_path
from onnx_cgmq.data.user_code import user_code
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.learn.batches import Answers

Outputs = Mapping[str, Tensor]
LossFunction = Callable[[Outputs, Answers, Outputs], Tensor]
"""``loss(outputs, labels, teacher_outputs)`` returns a scalar tensor.

``labels`` are int64 ``[N]`` for N samples, or ``None``. If the data has target values, they are a
mapping of these by output name, with the labels as ``label`` if there are any.
"""


def is_own(setting: str | Callable[..., Any]) -> bool:
    """Whether a setting is a loss of the user's own."""
    return not isinstance(setting, str) or is_object_path(setting)


def backward(value: Tensor, loss: LossFunction) -> None:
    """Computes the gradients of a loss from its value.

    Raises:
        ConfigError: This fails, and the loss is the user's own.
    """
    own = isinstance(loss, OwnLoss)
    with user_code(f"the backward pass of {loss}", ConfigError) if own else nullcontext():
        value.backward()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class OwnLoss:
    """A loss of the user's own, as a :data:`LossFunction`.

    Attributes:
        function: The function.
        name: What messages call it.
    """

    function: Callable[..., Any]
    name: str

    @classmethod
    def of(cls, setting: str | Callable[..., Any]) -> OwnLoss:
        """Makes the loss that a setting gives (:func:`is_own`).

        Raises:
            ConfigError: The function can't be imported.
        """
        if isinstance(setting, str):
            return cls(import_object(setting, ConfigError), setting)
        return cls(setting, getattr(setting, "__qualname__", type(setting).__name__))

    def __str__(self) -> str:
        return f"the loss {self.name}"

    def __call__(self, outputs: Outputs, labels: Answers, teacher: Outputs) -> Tensor:
        """Computes the loss.

        Raises:
            ConfigError: The function fails, or returns something else than a loss.
        """
        with user_code(str(self), ConfigError):
            value = self.function(outputs, labels, teacher)
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = (
                f"a tensor of shape {list(value.shape)}"
                if isinstance(value, Tensor)
                else f"an object of type {type(value).__name__}"
            )
            raise ConfigError(f"{self} returns {found}; return a tensor with a single number")
        if not value.requires_grad and any(output.requires_grad for output in outputs.values()):
            raise ConfigError(
                f"{self} returns a value without a gradient; compute it of the outputs, which are "
                "the first argument, without detach(), item() or numpy()"
            )
        return value
