"""One time step of RNN, GRU and LSTM, for any of the standard's activation functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context

State = tuple[Tensor, ...]
"""Hidden state, and for LSTM the cell state: ``[batch, hidden]`` each."""

Step = Callable[[Tensor, State], State]
"""``step(gates, state)`` with the input's share of the gates, ``[batch, gates * hidden]``."""

_FUNCTIONS: Final[Mapping[str, Callable[[Tensor, float, float], Tensor]]] = MappingProxyType(
    {
        "affine": lambda x, alpha, beta: alpha * x + beta,
        "elu": lambda x, alpha, beta: functional.elu(x, alpha),
        "hardsigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0.0, 1.0),
        "leakyrelu": lambda x, alpha, beta: functional.leaky_relu(x, alpha),
        "relu": lambda x, alpha, beta: torch.relu(x),
        "scaledtanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
        "sigmoid": lambda x, alpha, beta: torch.sigmoid(x),
        "softplus": lambda x, alpha, beta: torch.logaddexp(x, torch.zeros_like(x)),
        "softsign": lambda x, alpha, beta: functional.softsign(x),
        "tanh": lambda x, alpha, beta: torch.tanh(x),
        "thresholdedrelu": lambda x, alpha, beta: torch.where(x >= alpha, x, torch.zeros_like(x)),
    }
)
_USES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "affine": ("alpha", "beta"),
        "elu": ("alpha",),
        "hardsigmoid": ("alpha", "beta"),
        "leakyrelu": ("alpha",),
        "scaledtanh": ("alpha", "beta"),
        "thresholdedrelu": ("alpha",),
    }
)
_DEFAULTS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {"elu": (1.0, 0.0), "hardsigmoid": (0.2, 0.5), "leakyrelu": (0.01, 0.0)}
)


@dataclass(frozen=True)
class Activation:
    """An activation function and its two numbers; those it doesn't use are 0."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Applies the function."""
        return _FUNCTIONS[self.name](x, self.alpha, self.beta)


SIGMOID: Final = Activation("sigmoid")
TANH: Final = Activation("tanh")


def activations_of(ctx: Context, default: tuple[Activation, ...]) -> tuple[Activation, ...]:
    """The activation functions that a node asks for, or the default ones.

    ``activation_alpha`` and ``activation_beta`` are used up by the functions that have such a
    number, in order, as in onnxruntime.

    Raises:
        ValueError: If a function is unknown, or lacks a number for which the standard and
            onnxruntime have different defaults.
    """
    if not ctx.has("activations"):
        return default
    numbers = {
        "alpha": iter(ctx.attributes.get("activation_alpha", ())),
        "beta": iter(ctx.attributes.get("activation_beta", ())),
    }
    found = []
    for text in ctx.attributes["activations"]:
        name = str(text).lower()
        if name not in _FUNCTIONS:
            raise ValueError(f"unknown activation function '{text}'")
        values = dict(zip(("alpha", "beta"), _DEFAULTS.get(name, (None, None)), strict=True))
        for number in _USES.get(name, ()):
            values[number] = next(numbers[number], values[number])
            if values[number] is None:
                raise ValueError(f"{text} needs activation_{number}; it has no default")
        found.append(Activation(name, values["alpha"] or 0.0, values["beta"] or 0.0))
    return tuple(found)


def clipped(limit: float) -> Callable[[Tensor], Tensor]:
    """Limits the inputs of gate activations to ``[-limit, limit]``; no limit if it is 0.

    The input of LSTM's third activation, the cell state, is not limited, as in onnxruntime.
    """
    return (lambda x: x.clamp(-limit, limit)) if limit > 0 else (lambda x: x)


def rnn_step(f: Activation, recurrence: Tensor, limit: float) -> Step:
    """``H = f(gates + H R')``."""
    clip, transposed = clipped(limit), recurrence.t()

    def step(gates: Tensor, state: State) -> State:
        return (f(clip(torch.addmm(gates, state[0], transposed))),)

    return step


def gru_step(f: Activation, g: Activation, recurrence: Tensor, limit: float) -> Step:
    """The form that resets the state before the product: ``h = g(gates + (r * H) Rh')``."""
    clip, size = clipped(limit), recurrence.shape[1]
    update_reset, candidate = recurrence[: 2 * size].t(), recurrence[2 * size :].t()

    def step(gates: Tensor, state: State) -> State:
        (hidden,) = state
        both = f(clip(torch.addmm(gates[:, : 2 * size], hidden, update_reset)))
        z, r = both.chunk(2, dim=1)
        h = g(clip(torch.addmm(gates[:, 2 * size :], r * hidden, candidate)))
        return (h + z * (hidden - h),)

    return step


def gru_step_linear_before_reset(
    f: Activation, g: Activation, recurrence: Tensor, bias: Tensor | None, limit: float
) -> Step:
    """The form that resets the product: ``h = g(gates + r * (H Rh' + bias))``.

    Args:
        f: Activation of the update and reset gates.
        g: Activation of the candidate.
        recurrence: ``[3 * hidden, hidden]``.
        bias: ``[3 * hidden]``, the recurrent one; the other one is in the gates already.
        limit: See :func:`clipped`.
    """
    clip, size, transposed = clipped(limit), recurrence.shape[1], recurrence.t()

    def step(gates: Tensor, state: State) -> State:
        (hidden,) = state
        product = hidden @ transposed
        product = product if bias is None else product + bias
        both = f(clip(gates[:, : 2 * size] + product[:, : 2 * size]))
        z, r = both.chunk(2, dim=1)
        h = g(clip(gates[:, 2 * size :] + r * product[:, 2 * size :]))
        return (h + z * (hidden - h),)

    return step


def lstm_step(
    activations: tuple[Activation, ...],
    recurrence: Tensor,
    peephole: Tensor | None,
    limit: float,
    coupled: bool,
) -> Step:
    """The gates i, o, f and c of an LSTM.

    Args:
        activations: Of the gates, of the cell's input and of its output.
        recurrence: ``[4 * hidden, hidden]``.
        peephole: ``[3 * hidden]``: how gates i, o and f see the cell state.
        limit: See :func:`clipped`.
        coupled: Whether the forget gate is ``1 - i`` (``input_forget``).
    """
    f, g, h = activations
    clip, transposed = clipped(limit), recurrence.t()
    seen = (None, None, None) if peephole is None else peephole.chunk(3)

    def see(gate: Tensor, cell: Tensor, weight: Tensor | None) -> Tensor:
        return f(clip(gate if weight is None else gate + weight * cell))

    def step(gates: Tensor, state: State) -> State:
        hidden, cell = state
        i, o, forget, c = torch.addmm(gates, hidden, transposed).chunk(4, dim=1)
        i = see(i, cell, seen[0])
        forget = 1 - i if coupled else see(forget, cell, seen[2])
        cell = forget * cell + i * g(clip(c))
        return see(o, cell, seen[1]) * h(cell), cell

    return step
