"""Products that onnxruntime's optimizer fuses with their neighbours (domain com.microsoft)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import OLDEST_OPSET, Context, find_operator, onnx_op
from onnx_cgmq.mirror.ops.convolution import check_rank, conv
from onnx_cgmq.mirror.ops.linear import gemm

_DOMAIN: Final = "com.microsoft"
_CONV_ACTIVATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Relu": (),
        "Tanh": (),
        "Sigmoid": (),
        "HardSwish": (),
        "LeakyRelu": ("alpha",),
        "HardSigmoid": ("alpha", "beta"),
        "Clip": ("min", "max"),
    }
)
"""Activations of FusedConv, and the attributes that ``activation_params`` lists."""

_GEMM_ACTIVATIONS: Final = frozenset(
    {
        "Celu",
        "Elu",
        "HardSigmoid",
        "LeakyRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
        "ThresholdedRelu",
    }
)


def _activate(ctx: Context, x: Tensor, attributes: Mapping[str, float]) -> Tensor:
    """Applies the operator that the attribute ``activation`` names."""
    name = ctx.text("activation")
    # The opset that has the numbers of Clip as attributes.
    operator = find_operator("", name, OLDEST_OPSET)
    assert operator is not None
    result: Tensor = operator.handler(replace(ctx, op_type=name, attributes=attributes), x)
    return result


def _check_conv(ctx: Context) -> str | None:
    if ctx.text("activation") not in _CONV_ACTIVATIONS:
        return f"activation '{ctx.text('activation')}'"
    wanted, given = _CONV_ACTIVATIONS[ctx.text("activation")], ctx.attributes
    if len(given.get("activation_params", ())) != len(wanted):
        return f"activation_params must be {', '.join(wanted) or 'empty'}"
    return check_rank(ctx)


@onnx_op("FusedConv", domain=_DOMAIN, check=_check_conv)
def fused_conv(
    ctx: Context,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """Convolution, an addition, an activation."""
    y = conv(ctx, x, weight, bias)
    y = y if added is None else y + added
    names, values = _CONV_ACTIVATIONS[ctx.text("activation")], ctx.attributes
    return _activate(ctx, y, dict(zip(names, values.get("activation_params", ()), strict=True)))


def _check_gemm(ctx: Context) -> str | None:
    known = ctx.text("activation") in _GEMM_ACTIVATIONS
    return None if known else f"activation '{ctx.text('activation')}'"


@onnx_op("FusedGemm", domain=_DOMAIN, check=_check_gemm)
def fused_gemm(ctx: Context, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Gemm, an activation."""
    prefix = "activation_"
    numbers = {
        name.removeprefix(prefix): value
        for name, value in ctx.attributes.items()
        if name.startswith(prefix)
    }
    return _activate(ctx, gemm(ctx, a, b, c), numbers)


@onnx_op("FusedMatMul", "TransposeMatMul", domain=_DOMAIN)
def fused_matmul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """``alpha * A' @ B'``; ``transBatch`` says that the rows come before the batch axes."""
    y = torch.matmul(_turned(ctx, a, "A"), _turned(ctx, b, "B"))
    alpha = ctx.real("alpha", 1.0)
    return y if alpha == 1.0 else y * alpha


def _turned(ctx: Context, x: Tensor, name: str) -> Tensor:
    if ctx.flag(f"transBatch{name}"):
        x = x.movedim(0, -2)
    return x.transpose(-1, -2) if ctx.flag(f"trans{name}") and x.dim() > 1 else x
