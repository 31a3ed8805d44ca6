"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear on integers of 2 to 16 bits."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import (
    INTEGER_LIMITS,
    TORCH_DTYPES,
    is_supported,
    unambiguous_type,
)
from onnx_cgmq.mirror.core.registry import Context, onnx_op


def _aligned(ctx: Context, values: Tensor, x: Tensor) -> Tensor:
    """Scales or zero points (per tensor, axis or block) in a shape that broadcasts against x."""
    if values.numel() == 1 and values.dim() <= 1:
        return values.reshape(())
    axis = ctx.integer("axis", 1) % x.dim()
    if values.dim() == 1:
        return values.reshape([-1 if i == axis else 1 for i in range(x.dim())])
    repeated = values.repeat_interleave(ctx.integer("block_size"), dim=axis)
    return repeated.narrow(axis, 0, x.shape[axis])


def _declared_type(ctx: Context) -> ir.DataType | None:
    """Type of the codes that QuantizeLinear writes, where the graph tells it."""
    if ctx.integer("output_dtype"):
        return ir.DataType(ctx.integer("output_dtype"))
    return ctx.input_type(2)


def _check_codes(ctx: Context) -> str | None:
    code_type = _declared_type(ctx)
    if code_type is not None and code_type not in INTEGER_LIMITS:
        return f"codes of type {code_type.name}"
    precision = ctx.integer("precision")
    if precision and not is_supported(ir.DataType(precision)):
        return f"precision {ir.DataType(precision).name}"
    return None


@onnx_op("QuantizeLinear", since=10, check=_check_codes)
def quantize_linear(
    ctx: Context, x: Tensor, scale: Tensor, zero_point: Tensor | None = None
) -> Tensor:
    """``saturate(round(x / scale) + zero_point)``, half to even."""
    code_type = _declared_type(ctx)
    if code_type is None:
        code_type = (
            ir.DataType.UINT8 if zero_point is None else unambiguous_type(zero_point, ctx.opset)
        )
    smallest, largest = INTEGER_LIMITS[code_type]
    precision = ctx.integer("precision")
    if precision:
        kind = TORCH_DTYPES[ir.DataType(precision)]
        x, scale = x.to(kind), scale.to(kind)
    elif not x.dtype.is_floating_point:
        x = x.to(torch.float32)
    codes = torch.round(x / _aligned(ctx, scale, x).to(x.dtype))
    codes = codes.to(torch.float64 if codes.dtype is torch.float64 else torch.float32)
    if zero_point is not None:
        codes = codes + _aligned(ctx, zero_point, x).to(codes.dtype)
    return codes.clamp(smallest, largest).to(torch.int64).to(TORCH_DTYPES[code_type])


@onnx_op("DequantizeLinear", since=10)
def dequantize_linear(
    ctx: Context, x: Tensor, scale: Tensor, zero_point: Tensor | None = None
) -> Tensor:
    """``(x - zero_point) * scale``."""
    codes = x.to(torch.int64)
    if zero_point is not None:
        codes = codes - _aligned(ctx, zero_point, x).to(torch.int64)
    aligned = _aligned(ctx, scale, x)
    wide = aligned if aligned.dtype is torch.float64 else aligned.to(torch.float32)
    target = ctx.integer("output_dtype")
    y = codes.to(wide.dtype) * wide
    return y.to(TORCH_DTYPES[ir.DataType(target)] if target else scale.dtype)


@onnx_op("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(ctx: Context, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """UINT8 codes over the range of the tensor, with scale and zero point."""
    low, high = x.amin().clamp_max(0.0), x.amax().clamp_min(0.0)
    scale = (high - low) / 255.0
    zero_point = torch.round((-low / scale).clamp(0.0, 255.0))
    codes = (torch.round(x / scale) + zero_point).clamp(0.0, 255.0)
    return codes.to(torch.uint8), scale, zero_point.to(torch.uint8)
