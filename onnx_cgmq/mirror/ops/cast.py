"""Conversions of type."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES, is_supported, unambiguous_type
from onnx_cgmq.mirror.core.registry import Context, onnx_op


def convert(x: Tensor, target: ir.DataType) -> Tensor:
    """Converts as ONNX says: towards zero from float to integer, low bits between integers."""
    dtype = TORCH_DTYPES[target]
    if dtype is torch.bool:
        return x != 0
    if target.bitwidth >= 8:
        return x.to(dtype)
    bits = 1 << target.bitwidth
    low_bits = x.to(torch.int64) & (bits - 1)
    if dtype is torch.int8:
        low_bits = torch.where(low_bits >= bits // 2, low_bits - bits, low_bits)
    return low_bits.to(dtype)


def _check_target(ctx: Context) -> str | None:
    target = ir.DataType(ctx.integer("to"))
    return None if is_supported(target) else f"no tensors of type {target.name}"


@onnx_op("Cast", since=6, check=_check_target)
def cast(ctx: Context, x: Tensor) -> Tensor:
    """Converts to the type in the attribute ``to``."""
    return convert(x, ir.DataType(ctx.integer("to")))


@onnx_op("CastLike", since=15)
def cast_like(ctx: Context, x: Tensor, target: Tensor) -> Tensor:
    """Converts to the type of the second input."""
    return convert(x, ctx.input_type(1) or unambiguous_type(target, ctx.opset))


def _check_width(ctx: Context) -> str | None:
    source, target = ctx.input_type(0), ir.DataType(ctx.integer("to"))
    if source is not None and source.bitwidth != target.bitwidth:
        return f"{source.name} and {target.name} differ in width"
    return _check_target(ctx)


@onnx_op("BitCast", since=26, check=_check_width)
def bit_cast(ctx: Context, x: Tensor) -> Tensor:
    """The same bits as another type of the same width."""
    target = ir.DataType(ctx.integer("to"))
    # Codes of less than 8 bits are held in bytes: their low bits are all there is.
    return convert(x, target) if target.bitwidth < 8 else x.view(TORCH_DTYPES[target])
