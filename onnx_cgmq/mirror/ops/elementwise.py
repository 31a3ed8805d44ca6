"""Elementwise arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import comparable, computable, from_comparable
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.host import Number, number

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}


_WITH_POLES = frozenset({"Acos", "Acosh", "Asin", "Atanh", "Log", "Reciprocal", "Sqrt"})
"""Those that are not defined everywhere, or have no finite slope."""


@onnx_op(*_UNARY)
def unary(ctx: Context, x: Tensor) -> Tensor:
    """A function of every element; Round is half-to-even."""
    run = _UNARY[ctx.op_type]
    if ctx.op_type in _WITH_POLES and _has_gradient(x):
        return _without_gradient_at_poles(run, x)
    return run(computable(x)).to(x.dtype)


def _has_gradient(*xs: Tensor) -> bool:
    """Whether a gradient may come back; a compiled graph can't look at values to mend it."""
    return any(x.requires_grad for x in xs) and not torch.compiler.is_compiling()


def _without_gradient_at_poles(run: Callable[..., Tensor], *xs: Tensor) -> Tensor:
    """What a function gives, with a gradient of zero where it gives none that is finite.

    The loss leaves such elements out (the logarithm of zero), so their gradient is zero; but zero
    times an infinite slope would be NaN, and lose the gradients of all other elements.
    """
    y = run(*xs)
    undefined = ~torch.isfinite(y)
    if not undefined.any():
        return y
    views = [x.expand_as(y) for x in xs]  # one gradient for each element of the result
    for view in views:
        if view.requires_grad:
            view.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient.masked_fill(undefined, 0.0)
            )
    return run(*views)


@onnx_op("Add", since=7)
def add(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Sum."""
    return torch.add(computable(a), computable(b)).to(a.dtype)


@onnx_op("Sub", since=7)
def sub(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Difference."""
    return torch.sub(computable(a), computable(b)).to(a.dtype)


@onnx_op("Mul", since=7)
def mul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Product."""
    return torch.mul(computable(a), computable(b)).to(a.dtype)


@onnx_op("Div", since=7)
def div(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Quotient; integers are truncated towards zero."""
    if a.dtype.is_floating_point:
        if _has_gradient(a, b) and bool((b == 0).any()):
            return _without_gradient_at_poles(torch.div, a, b)
        return torch.div(a, b)
    return torch.div(computable(a), computable(b), rounding_mode="trunc").to(a.dtype)


@onnx_op("Pow", since=7)
def power(ctx: Context, base: Tensor, exponent: Tensor) -> Tensor:
    """Power, of the type of the base."""
    a, b = computable(base), computable(exponent)
    if not a.dtype.is_floating_point and not b.dtype.is_floating_point and bool((b < 0).any()):
        a = a.to(torch.float64)
    return torch.pow(a, b).to(base.dtype)


@onnx_op("Mod", since=10)
def mod(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the sign of the divisor, or of the dividend if ``fmod``."""
    run = torch.fmod if ctx.flag("fmod") else torch.remainder
    return run(computable(a), computable(b)).to(a.dtype)


@onnx_op("Min", since=1)
def minimum(ctx: Context, *xs: Tensor) -> Tensor:
    """Elementwise minimum."""
    return from_comparable(reduce(torch.minimum, map(comparable, xs)), xs[0].dtype)


@onnx_op("Max", since=1)
def maximum(ctx: Context, *xs: Tensor) -> Tensor:
    """Elementwise maximum."""
    return from_comparable(reduce(torch.maximum, map(comparable, xs)), xs[0].dtype)


@onnx_op("Sum", since=1)
def total(ctx: Context, *xs: Tensor) -> Tensor:
    """Elementwise sum."""
    return reduce(torch.add, map(computable, xs)).to(xs[0].dtype)


@onnx_op("Mean", since=1)
def mean(ctx: Context, *xs: Tensor) -> Tensor:
    """Elementwise mean."""
    return total(ctx, *xs) / len(xs)


@onnx_op("Clip", since=1)
def clip_attributes(ctx: Context, x: Tensor) -> Tensor:
    """Clips to limits given as attributes."""
    low = ctx.real("min") if ctx.has("min") else None
    high = ctx.real("max") if ctx.has("max") else None
    return clip(ctx, x, low, high)


@onnx_op("Clip", since=11, host_if_known=(1, 2))
def clip(
    ctx: Context,
    x: Tensor,
    low: Number | Tensor | None = None,
    high: Number | Tensor | None = None,
) -> Tensor:
    """Clips to ``[low, high]``, scalars or of one element; ``high`` wins if they are crossed."""
    if low is None and high is None:
        return x
    if isinstance(low, Tensor) or isinstance(high, Tensor) or x.dtype is torch.uint64:
        ends = (
            end if end is None else torch.as_tensor(end).to(x).reshape(()) for end in (low, high)
        )
        bounds = (end if end is None else comparable(end) for end in ends)
        return from_comparable(torch.clamp(comparable(x), *bounds), x.dtype)
    least, most = (end if end is None else number(end) for end in (low, high))
    return torch.clamp(computable(x), least, most).to(x.dtype)


@onnx_op("Where", since=9)
def where(ctx: Context, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Elements of ``a`` where the condition holds, else of ``b``."""
    return torch.where(condition, a, b)


@onnx_op("CumSum", since=11, host=(1,))
def cumulative_sum(ctx: Context, x: Tensor, axis: Number) -> Tensor:
    """Running sum along an axis."""
    return _running(ctx, x, int(number(axis)), torch.cumsum, 0)


@onnx_op("CumProd", since=26, host=(1,))
def cumulative_product(ctx: Context, x: Tensor, axis: Number) -> Tensor:
    """Running product along an axis."""
    return _running(ctx, x, int(number(axis)), torch.cumprod, 1)


def _running(
    ctx: Context, x: Tensor, axis: int, run: Callable[[Tensor, int], Tensor], start: int
) -> Tensor:
    """Results up to every element, without the element itself if ``exclusive``."""
    values = computable(x)
    values = values.flip(axis) if ctx.flag("reverse") else values
    y = run(values, axis)
    if ctx.flag("exclusive") and y.shape[axis]:
        first = torch.full_like(y.narrow(axis, 0, 1), start)
        y = torch.cat([first, y.narrow(axis, 0, y.shape[axis] - 1)], dim=axis)
    return (y.flip(axis) if ctx.flag("reverse") else y).to(x.dtype)
