"""Activations that onnxruntime's optimizer and exporters for it write (domain com.microsoft)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op

_DOMAIN: Final = "com.microsoft"


@onnx_op("Gelu", domain=_DOMAIN)
def gelu(ctx: Context, x: Tensor) -> Tensor:
    """Gaussian error linear unit."""
    return functional.gelu(x)


@onnx_op("BiasGelu", domain=_DOMAIN)
def bias_gelu(ctx: Context, x: Tensor, bias: Tensor) -> Tensor:
    """``gelu(x + bias)``."""
    return functional.gelu(x + bias)


@onnx_op("FastGelu", domain=_DOMAIN)
def fast_gelu(ctx: Context, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """``gelu(x + bias)``, approximated by tanh."""
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@onnx_op("QuickGelu", domain=_DOMAIN)
def quick_gelu(ctx: Context, x: Tensor) -> Tensor:
    """``x * sigmoid(alpha * x)``."""
    return x * torch.sigmoid(ctx.real("alpha", 1.702) * x)
