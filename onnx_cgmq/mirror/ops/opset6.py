"""Operators as opset 6 defines them, where opset 7 changed their meaning."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, Handler, onnx_op
from onnx_cgmq.mirror.ops.activation import prelu
from onnx_cgmq.mirror.ops.elementwise import add, div, mul, power, sub
from onnx_cgmq.mirror.ops.logic import compare, logic
from onnx_cgmq.mirror.ops.normalization import batch_normalization
from onnx_cgmq.mirror.ops.random import dropout_inference

_BINARY: dict[str, Handler] = {
    "Add": add,
    "And": logic,
    "Div": div,
    "Equal": compare,
    "Greater": compare,
    "Less": compare,
    "Mul": mul,
    "Or": logic,
    "Pow": power,
    "Sub": sub,
    "Xor": logic,
}


@onnx_op(*_BINARY, since=6)
def binary(ctx: Context, a: Tensor, b: Tensor) -> Any:
    """An elementwise operator; with ``axis`` the second input begins at that axis of the first."""
    if ctx.has("axis"):
        trailing = a.dim() - ctx.integer("axis") % a.dim() - b.dim()
        b = b.reshape(*b.shape, *(1,) * trailing)
    return _BINARY[ctx.op_type](ctx, a, b)


@onnx_op("PRelu", since=6)
def prelu_per_channel(ctx: Context, x: Tensor, slope: Tensor) -> Tensor:
    """``x`` where not negative, else ``slope * x``; one slope, or one per channel."""
    return prelu(ctx, x, slope.reshape(-1, *(1,) * (x.dim() - 2)))


def _check_test(ctx: Context) -> str | None:
    return None if ctx.flag("is_test") else "training mode; export the model for inference"


@onnx_op("BatchNormalization", since=6, check=_check_test)
def batch_normalization_test(ctx: Context, x: Tensor, *statistics: Tensor) -> Tensor:
    """Batch normalization with the statistics given."""
    return batch_normalization(ctx, x, *statistics)


@onnx_op("Dropout", since=6, check=_check_test)
def dropout_test(ctx: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """The input itself, and a mask that keeps everything."""
    return dropout_inference(ctx, x)
