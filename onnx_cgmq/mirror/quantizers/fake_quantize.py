"""Fake quantization with one fused forward and one fused backward function.

The grids of all widths over one range are nested. So one rounding at the selected width equals the
residual sum of Bayesian Bits (arXiv 2005.07093), and no chain of residuals is built or
differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class GradientObserver(Protocol):
    """Sees the values and gradients of the backward pass, from which importance is computed."""

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Takes a tensor, and the gradient (same shape) of the loss for its quantized value."""


@dataclass(frozen=True)
class Grid:
    """An integer grid, which broadcasts to the tensor that it quantizes.

    Attributes:
        step: The step, float32, positive (any value where ``passes`` is true).
        code_min: Smallest code minus the zero point, whole numbers in float32; ``-inf`` where
            ``passes`` is true.
        code_max: Largest code minus the zero point, likewise; ``inf`` where ``passes`` is true.
        passes: True where the value stays float; ``None`` if no value does.
    """

    step: Tensor
    code_min: Tensor
    code_max: Tensor
    passes: Tensor | None = None


def _reduce_to(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Sums a tensor down to a shape that broadcasts to it."""
    return tensor.sum_to_size(shape) if tensor.shape != shape else tensor


class FakeQuantize(torch.autograd.Function):
    """``y = clip(round(x / step), code_min, code_max) * step`` with learned range ends.

    The gradient for ``x`` is straight-through inside the range, and zero outside. A quantizer
    without a low end (symmetric, unsigned) is homogeneous in ``(x, high)``. Hence by Euler's
    theorem ``high * dL/dhigh = sum(g * y) - sum(g_x * x)``. This is LSQ's gradient from two dot
    products; no mask and no codes are kept. With a low end, a clipped value gives its gradient to
    the end at which it is clipped (as in TQT).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        high: Tensor,
        low: Tensor | None,
        grid: Grid,
        observer: GradientObserver | None,
    ) -> Tensor:
        """Quantizes and dequantizes ``x`` (any shape, float) on ``grid``."""
        y = torch.div(x, grid.step).round_()
        inside = None
        # torch.compile can't trace item(), for which a GPU would have to be waited for.
        if grid.step.dim() == 0 and x.is_cpu and not torch.compiler.is_compiling():
            y.clamp_(grid.code_min.item(), grid.code_max.item()).mul_(grid.step)
        else:
            codes = torch.clamp(y, grid.code_min, grid.code_max)
            inside = codes == y
            y = codes.mul_(grid.step)
            if grid.passes is not None:
                torch.where(grid.passes, x, y, out=y)
        ctx.save_for_backward(x, y, high, low, inside)
        ctx.grid = grid
        ctx.observer = observer
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Gradients for ``x``, ``high`` and ``low``."""
        (g,) = gradients
        x, y, high, low, inside = ctx.saved_tensors
        grid: Grid = ctx.grid
        if ctx.observer is not None:
            ctx.observer.observe(x, g)
        if inside is None:  # one torch kernel, without a mask
            lower = (grid.code_min - 0.5) * grid.step
            upper = (grid.code_max + 0.5) * grid.step
            g_x = torch.ops.aten.hardtanh_backward(g, x, lower.item(), upper.item())
        else:
            g_x = g * inside
        if low is not None:
            g_high, g_low = _affine_range_gradients(g, g_x, x, y, high, low)
            return g_x, g_high, g_low, None, None
        if high.dim() == 0:
            euler = _dot(g, y) - _dot(g_x, x)
        else:
            euler = _reduce_to(g * y - g_x * x, high.shape)
        return g_x, euler / high, None, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of products in float32, for any memory format, without a temporary tensor."""
    if not (a.is_contiguous() and b.is_contiguous()):
        same = a.dim() == 4 and all(
            t.is_contiguous(memory_format=torch.channels_last) for t in (a, b)
        )
        if not same:
            return (a * b).sum()
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _affine_range_gradients(
    g: Tensor, g_x: Tensor, x: Tensor, y: Tensor, high: Tensor, low: Tensor
) -> tuple[Tensor, Tensor]:
    if high.dim() == 0:
        rounding = (_dot(g_x, y) - _dot(g_x, x)) / (high - low)
    else:
        rounding = _reduce_to(g_x * (y - x), high.shape) / (high - low)
    clipped = g - g_x
    above = _reduce_to(clipped * (x > y), high.shape)
    below = _reduce_to(clipped, high.shape) - above
    return above + rounding, below - rounding


def fake_quantize(
    x: Tensor, high: Tensor, low: Tensor | None, grid: Grid, observer: GradientObserver | None
) -> Tensor:
    """Quantizes and dequantizes a tensor (:class:`FakeQuantize`).

    Args:
        x: The tensor, any shape, float32.
        high: Range ends, which broadcast to ``x``.
        low: Range starts if they are learned apart from ``high``, else ``None``.
        grid: The grid over that range.
        observer: Sees ``x`` and its gradient in the backward pass; may be ``None``.
    """
    result: Tensor = FakeQuantize.apply(x, high, low, grid, observer)  # type: ignore[no-untyped-call]
    return result


class Observe(torch.autograd.Function):
    """The identity, which shows value and gradient to an observer: a quantizer at 32 bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, observer: GradientObserver) -> Tensor:
        """Returns ``x``."""
        ctx.save_for_backward(x)
        ctx.observer = observer
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Passes the gradient on."""
        (g,) = gradients
        (x,) = ctx.saved_tensors
        ctx.observer.observe(x, g)
        return g, None


def seen_by(observer: GradientObserver | None, x: Tensor) -> Tensor:
    """Returns ``x``; in the backward pass the observer, if any, sees ``x`` and its gradient."""
    if observer is None:
        return x
    result: Tensor = Observe.apply(x, observer)  # type: ignore[no-untyped-call]
    return result


def round_straight_through(x: Tensor, step: Tensor) -> Tensor:
    """Computes ``round(x / step) * step``, with the gradient of the identity."""
    rounded = torch.round(x.detach() / step) * step
    return x + (rounded - x).detach()


def with_gradient_of(learned: Tensor, value: Tensor) -> Tensor:
    """Returns ``value`` unchanged, and passes its gradient on to ``learned``."""
    if not (torch.is_grad_enabled() and learned.requires_grad):
        return value
    return value + (learned - learned.detach())
