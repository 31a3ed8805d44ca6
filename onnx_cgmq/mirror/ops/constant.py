"""Operators that make tensors. The mirror itself holds the tensors of most ``Constant`` nodes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES
from onnx_cgmq.mirror.core.registry import Context, onnx_op


def _check_constant(ctx: Context) -> str | None:
    for name in ("sparse_value", "value_string", "value_strings"):
        if ctx.has(name):
            return f"its attribute {name}"
    return None


@onnx_op("Constant", check=_check_constant)
def constant(ctx: Context) -> Tensor:
    """The tensor in the attribute ``value``, where the graph keeps it as a node."""
    value: Tensor = ctx.attributes["value"]
    return value.to(ctx.device, copy=True)


@onnx_op("ConstantOfShape", since=9, host=(0,))
def constant_of_shape(ctx: Context, shape: Sequence[int]) -> Tensor:
    """A tensor of one value, float32 zeros by default."""
    value: Tensor | None = ctx.attributes.get("value")
    if value is None:
        return torch.zeros(tuple(shape), device=ctx.device)
    return value.to(ctx.device).reshape(()).expand(tuple(shape)).clone()


@onnx_op("Range", since=11, host_if_known=(0, 1, 2))
def range_(
    ctx: Context, start: Tensor | float, limit: Tensor | float, delta: Tensor | float
) -> Tensor:
    """``start + i * delta`` below ``limit``; differentiable in start and delta."""
    types = (*ctx.input_types, ir.DataType.FLOAT)
    dtype = TORCH_DTYPES[next(known for known in types if known is not None)]
    if isinstance(start, int) and isinstance(limit, int) and isinstance(delta, int):
        count = max(0, -((start - limit) // delta))
        return start + delta * torch.arange(count, dtype=dtype, device=ctx.device)
    first, last, step = (
        bound if isinstance(bound, Tensor) else torch.tensor(bound, dtype=dtype, device=ctx.device)
        for bound in (start, limit, delta)
    )
    count = max(0, int(torch.ceil((last - first) / step).item()))
    index = torch.arange(count, device=step.device, dtype=step.dtype)
    return first + index * step


@onnx_op("EyeLike", since=9)
def eye_like(ctx: Context, x: Tensor) -> Tensor:
    """Ones on a diagonal of a matrix of the same shape."""
    dtype = TORCH_DTYPES[ir.DataType(ctx.integer("dtype"))] if ctx.has("dtype") else x.dtype
    ones = torch.ones(x.shape, dtype=torch.bool, device=x.device)
    k = ctx.integer("k")
    return ones.triu(k).tril(k).to(dtype)
