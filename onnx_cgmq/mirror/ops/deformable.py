"""DeformConv: convolution whose taps are moved by learned offsets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.grid import at_positions
from onnx_cgmq.mirror.ops.windows import window_of


@onnx_op("DeformConv", since=19)
def deform_conv(
    ctx: Context,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Samples the image where the taps lie, then multiplies like a convolution with one tap.

    Args:
        ctx: The node.
        x: Image ``[N, C, ...]``.
        weight: ``[M, C / group, ...]``, any tensor.
        offset: ``[N, offset_group * taps * rank, ...]`` in pixels, at every place of the output.
        bias: ``[M]``.
        mask: ``[N, offset_group * taps, ...]``, a factor of every tap.
    """
    rank, groups = x.dim() - 2, ctx.integer("offset_group", 1)
    kernel, output = tuple(weight.shape[2:]), tuple(offset.shape[2:])
    taps, batch = math.prod(kernel), x.shape[0]
    dtype = torch.promote_types(x.dtype, torch.float32)
    window = window_of(ctx, x.shape[2:], kernel)
    if window.output != output:
        raise ValueError(f"offsets for {output} positions, but the output has {window.output}")
    moved = offset.to(dtype).reshape(batch * groups, taps, rank, *output)
    positions = []
    for axis in range(rank):
        tap = torch.arange(kernel[axis], device=x.device) * window.dilation[axis]
        tap = _along(tap, axis, rank).expand(kernel).reshape(taps, *(1,) * rank)
        place = torch.arange(output[axis], device=x.device) * window.stride[axis]
        regular = tap + _along(place, axis, rank) - window.begin[axis]
        positions.append((moved[:, :, axis] + regular).flatten(1, 2))
    image = x.to(dtype).reshape(batch * groups, -1, *x.shape[2:])
    columns = at_positions(image, positions).reshape(batch, groups, -1, taps, math.prod(output))
    if mask is not None:
        columns = columns * mask.to(dtype).reshape(batch, groups, 1, taps, -1)
    parts = ctx.integer("group", 1)
    matrix = weight.to(dtype).reshape(parts, weight.shape[0] // parts, -1)
    y = matrix @ columns.reshape(batch, parts, -1, math.prod(output))
    y = y.reshape(batch, -1, *output).to(x.dtype)
    return y if bias is None else y + bias.reshape(-1, *(1,) * rank)


def _along(values: Tensor, axis: int, rank: int) -> Tensor:
    """A vector as a tensor of a rank, along one axis."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)
