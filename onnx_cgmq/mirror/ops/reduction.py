"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import comparable, computable, from_comparable
from onnx_cgmq.mirror.core.registry import Context, onnx_op

_Axes = tuple[int, ...]
_Reduce = Callable[[Tensor, _Axes, bool], Tensor]


def _sum(x: Tensor, axes: _Axes, keep: bool) -> Tensor:
    return x.sum(dim=axes, keepdim=keep)


def _product(x: Tensor, axes: _Axes, keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(dim=axis, keepdim=keep)
    return x


def _extreme(x: Tensor, axes: _Axes, keep: bool, *, largest: bool) -> Tensor:
    if x.numel() == 0 and any(x.shape[axis] == 0 for axis in axes):
        if x.dtype.is_floating_point:
            limit: float = -torch.inf if largest else torch.inf
        elif x.dtype is torch.bool:
            limit = 0 if largest else 1
        else:
            limit = torch.iinfo(x.dtype).min if largest else torch.iinfo(x.dtype).max
        return torch.full_like(_sum(x, axes, keep), limit, dtype=x.dtype)
    return x.amax(dim=axes, keepdim=keep) if largest else x.amin(dim=axes, keepdim=keep)


def _log_sum_exp(x: Tensor, axes: _Axes, keep: bool) -> Tensor:
    if not x.dtype.is_floating_point:
        x = x.to(torch.float64)
    return torch.logsumexp(x, dim=axes, keepdim=keep)


def _mean(x: Tensor, axes: _Axes, keep: bool) -> Tensor:
    if x.dtype.is_floating_point:
        return x.mean(dim=axes, keepdim=keep)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return torch.div(_sum(x, axes, keep), count, rounding_mode="trunc")


def _norm(x: Tensor, axes: _Axes, keep: bool) -> Tensor:
    if not x.dtype.is_floating_point:
        return torch.sqrt(_sum(x * x, axes, keep).to(torch.float64))
    result: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=keep)
    return result


_REDUCTIONS: dict[str, _Reduce] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": lambda x, axes, keep: _extreme(x, axes, keep, largest=True),
    "ReduceMin": lambda x, axes, keep: _extreme(x, axes, keep, largest=False),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": _norm,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": _log_sum_exp,
}


def _single(op_type: str, x: Tensor) -> Tensor:
    """Each element reduced by itself: no axes to reduce over."""
    if op_type in ("ReduceL1", "ReduceL2"):
        return x.abs()
    if op_type == "ReduceSumSquare":
        return x.square()
    return torch.log(x) if op_type == "ReduceLogSum" else x


def _reduce(ctx: Context, x: Tensor, axes: Sequence[int] | None) -> Tensor:
    if not axes:
        if ctx.flag("noop_with_empty_axes"):
            return _single(ctx.op_type, x)
        axes = range(x.dim())
    chosen = tuple(axis % x.dim() for axis in axes)
    if not chosen:
        return _single(ctx.op_type, x)
    run, keep = _REDUCTIONS[ctx.op_type], ctx.flag("keepdims", True)
    if ctx.op_type in ("ReduceMax", "ReduceMin"):
        return from_comparable(run(comparable(x), chosen, keep), x.dtype)
    return run(computable(x), chosen, keep).to(x.dtype)


@onnx_op(*_REDUCTIONS)
def reduce_attribute(ctx: Context, x: Tensor) -> Tensor:
    """Reduces over axes given as an attribute, or all."""
    return _reduce(ctx, x, ctx.integers("axes"))


@onnx_op("ReduceSum", since=13, host=(1,))
@onnx_op(*(name for name in _REDUCTIONS if name != "ReduceSum"), since=18, host=(1,))
def reduce_(ctx: Context, x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Reduces over the axes given, or all (none, if ``noop_with_empty_axes``)."""
    return _reduce(ctx, x, axes)


@onnx_op("ArgMax", "ArgMin")
def arg_extreme(ctx: Context, x: Tensor) -> Tensor:
    """Index of the first (or last) largest or smallest element along an axis, int64."""
    axis, keep = ctx.integer("axis") % x.dim(), ctx.flag("keepdims", True)
    x = comparable(x)
    last = ctx.flag("select_last_index")
    ordered = x.flip(axis) if last else x
    best = ordered.amax(axis, True) if ctx.op_type == "ArgMax" else ordered.amin(axis, True)
    # argmax of a mask is the first match on every device; argmax of the values need not be.
    index = (ordered == best).to(torch.uint8).argmax(dim=axis, keepdim=keep)
    return x.shape[axis] - 1 - index if last else index
