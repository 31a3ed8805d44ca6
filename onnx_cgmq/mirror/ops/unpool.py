"""Windows put back into images: MaxUnpool and Col2Im."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.dtypes import computable
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.windows import window_of


@onnx_op("MaxUnpool", since=9, host=(2,))
def max_unpool(
    ctx: Context, x: Tensor, indices: Tensor, output_shape: Sequence[int] | None = None
) -> Tensor:
    """Puts the values of a MaxPool back where they were, with zeros elsewhere.

    Indices count in the whole tensor that the attributes imply. A larger ``output_shape`` leaves
    room behind it, as in the standard's case; onnxruntime counts in that shape instead.
    """
    kernel = ctx.integers("kernel_shape") or ()
    rank = len(kernel)
    strides = ctx.integers("strides") or (1,) * rank
    pads = ctx.integers("pads") or (0,) * (2 * rank)
    sizes = [
        (n - 1) * s + k - b - e
        for n, s, k, b, e in zip(
            x.shape[2:], strides, kernel, pads[:rank], pads[rank:], strict=True
        )
    ]
    shape = (*x.shape[:2], *sizes)
    y = x.new_zeros(math.prod(shape)).scatter(0, indices.flatten(), x.flatten()).reshape(shape)
    if output_shape is None:
        return y
    room = [w - n for n, w in zip(shape, output_shape, strict=True)]
    return functional.pad(y, [amount for r in reversed(room) for amount in (0, r)])


@onnx_op("Col2Im", since=18, host=(1, 2))
def col2im(
    ctx: Context, x: Tensor, image_shape: Sequence[int], block_shape: Sequence[int]
) -> Tensor:
    """Sums overlapping blocks, given as columns, into an image."""
    window = window_of(ctx, image_shape, block_shape)
    sides = zip(image_shape, window.begin, window.end, strict=True)
    padded = tuple(n + b + e for n, b, e in sides)
    if len(padded) == 2 and x.is_floating_point():
        y = functional.fold(x, padded, window.kernel, window.dilation, 0, window.stride)
    else:
        wide = computable(x)
        y = _fold(wide, padded, window.kernel, window.dilation, window.stride, window.output)
        y = y.to(x.dtype)
    for axis, (size, begin) in enumerate(zip(image_shape, window.begin, strict=True)):
        y = y.narrow(2 + axis, begin, size)
    return y


def _fold(
    x: Tensor,
    sizes: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    stride: Sequence[int],
    blocks: Sequence[int],
) -> Tensor:
    """Sums the columns ``[N, C * taps, blocks]`` into ``[N, C, *sizes]``, for any rank and type."""
    index = torch.zeros((1, 1), dtype=torch.int64, device=x.device)
    for size, k, d, s, count in zip(sizes, kernel, dilation, stride, blocks, strict=True):
        taps = torch.arange(k, device=x.device) * d
        starts = torch.arange(count, device=x.device) * s
        place = taps[:, None] + starts
        index = (index[:, None, :, None] * size + place[:, None, :]).flatten(2).flatten(0, 1)
    values = x.reshape(x.shape[0], -1, index.numel())
    y = x.new_zeros((*values.shape[:2], math.prod(sizes)))
    y = y.scatter_add(2, index.flatten().expand_as(values), values)
    return y.reshape(*values.shape[:2], *sizes)
