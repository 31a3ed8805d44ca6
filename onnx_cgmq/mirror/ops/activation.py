"""Activation functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.dtypes import UNSIGNED_WIDE
from onnx_cgmq.mirror.core.registry import Context, onnx_op


@onnx_op("Relu")
def relu(ctx: Context, x: Tensor) -> Tensor:
    """``max(x, 0)``."""
    return torch.relu(x)


@onnx_op("LeakyRelu")
def leaky_relu(ctx: Context, x: Tensor) -> Tensor:
    """``x`` where positive, else ``alpha * x``."""
    return functional.leaky_relu(x, ctx.real("alpha", 0.01))


@onnx_op("PRelu", since=7)
def prelu(ctx: Context, x: Tensor, slope: Tensor) -> Tensor:
    """``x`` where not negative, else ``slope * x``."""
    if x.dtype in UNSIGNED_WIDE:
        return x
    return torch.where(x < 0, slope * x, x)


@onnx_op("ThresholdedRelu")
def thresholded_relu(ctx: Context, x: Tensor) -> Tensor:
    """``x`` where above ``alpha``, else 0."""
    return torch.where(x > ctx.real("alpha", 1.0), x, torch.zeros_like(x))


@onnx_op("Elu")
def elu(ctx: Context, x: Tensor) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return _elu(x, ctx.real("alpha", 1.0))


@onnx_op("Celu")
def celu(ctx: Context, x: Tensor) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x / alpha) - 1)``."""
    alpha = ctx.real("alpha", 1.0)
    return torch.where(x > 0, x, _elu(x / alpha, alpha))


@onnx_op("Selu")
def selu(ctx: Context, x: Tensor) -> Tensor:
    """``gamma * elu(x, alpha)``."""
    alpha = ctx.real("alpha", 1.67326319217681884765625)
    return ctx.real("gamma", 1.05070102214813232421875) * _elu(x, alpha)


def _elu(x: Tensor, alpha: float) -> Tensor:
    """``elu`` with ``exp(x)`` rounded before 1 is subtracted, as in onnxruntime.

    A small ``x`` has few digits then. torch's own function has them all, and so a quantizer behind
    small values would give other codes.
    """
    below = torch.expm1(x.clamp_max(0)) + 1
    return torch.where(x > 0, x, alpha * (below - 1))


@onnx_op("Sigmoid")
def sigmoid(ctx: Context, x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return torch.sigmoid(x)


@onnx_op("Tanh")
def tanh(ctx: Context, x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return torch.tanh(x)


@onnx_op("HardSigmoid")
def hard_sigmoid(ctx: Context, x: Tensor) -> Tensor:
    """``clip(alpha * x + beta, 0, 1)``."""
    return (ctx.real("alpha", 0.2) * x + ctx.real("beta", 0.5)).clamp(0.0, 1.0)


@onnx_op("HardSwish")
def hard_swish(ctx: Context, x: Tensor) -> Tensor:
    """``x * clip(x / 6 + 1/2, 0, 1)``."""
    return functional.hardswish(x)


@onnx_op("Swish")
def swish(ctx: Context, x: Tensor) -> Tensor:
    """``x * sigmoid(alpha * x)``."""
    return x * torch.sigmoid(ctx.real("alpha", 1.0) * x)


@onnx_op("SwiGLU", since=28)
def swiglu(ctx: Context, gate: Tensor, x: Tensor) -> Tensor:
    """``swish(gate) * x``."""
    return swish(ctx, gate) * x


@onnx_op("Gelu")
def gelu(ctx: Context, x: Tensor) -> Tensor:
    """Gaussian error linear unit, exact or by tanh."""
    return functional.gelu(x, approximate=ctx.text("approximate", "none"))


@onnx_op("Softplus")
def softplus(ctx: Context, x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, without a linear tail."""
    return torch.logaddexp(x, torch.zeros_like(x))


@onnx_op("Softsign")
def softsign(ctx: Context, x: Tensor) -> Tensor:
    """``x / (1 + |x|)``."""
    return functional.softsign(x)


@onnx_op("Mish")
def mish(ctx: Context, x: Tensor) -> Tensor:
    """``x * tanh(softplus(x))``."""
    return functional.mish(x)


@onnx_op("Shrink")
def shrink(ctx: Context, x: Tensor) -> Tensor:
    """Moves values towards 0 by ``bias`` and zeroes those within ``lambd``."""
    bias, lambd = ctx.real("bias", 0.0), ctx.real("lambd", 0.5)
    moved = torch.where(x < -lambd, x + bias, torch.zeros_like(x))
    return torch.where(x > lambd, x - bias, moved).to(x.dtype)
