"""The rounding of a bias to whole units of an integer kernel's accumulator."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_cgmq.gating.gated_qdq import INT32_LIMIT
from onnx_cgmq.mirror.quantizers.fake_quantize import round_straight_through


def accumulator_qdq(bias: Tensor, step_x: Tensor, step_w: Tensor) -> Tensor:
    """Rounds a bias to the INT32 codes that an integer kernel adds to its accumulator.

    Args:
        bias: The bias, float32, ``[C]``.
        step_x: Step of the activation, ``()``; 0 if the kernel is float.
        step_w: Step of the weight, ``()`` or one per channel in any shape; 0 if the kernel is
            float.

    Returns:
        ``round(bias / s) * s`` with ``s = step_x * step_w`` and a straight-through gradient; the
        bias itself if ``s`` is 0, or if a code does not fit into INT32.
    """
    step = (step_x * step_w.reshape(-1)).detach()
    fits = (step > 0).all() & ((bias.detach() / step).abs().amax() <= INT32_LIMIT)
    return torch.where(fits, round_straight_through(bias, step), bias)
