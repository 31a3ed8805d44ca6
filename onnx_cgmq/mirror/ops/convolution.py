"""Conv and ConvTranspose over one to three spatial axes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.windows import Window, window_of

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONV_TRANSPOSE = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def check_rank(ctx: Context) -> str | None:
    """Refuses kernels with more spatial axes than torch convolves over."""
    for name in ("kernel_shape", "strides", "dilations"):
        rank = len(ctx.integers(name) or (1,))
        if rank not in _CONV:
            return f"{rank} spatial axes (1 to 3 are supported)"
    return None


def _spatial_rank(weight: Tensor) -> int:
    rank = weight.dim() - 2
    if rank not in _CONV:
        raise ValueError(f"{rank} spatial axes; 1 to 3 are supported")
    return rank


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor in the memory format in which two-dimensional convolutions are fastest."""
    if tensor.dim() != 4:
        return tensor
    if tensor.shape[1] == 1 and tensor.is_contiguous():
        # One channel is laid out alike in both formats; only its strides tell torch which it is.
        n, _, height, width = tensor.shape
        return tensor.reshape(n, height, width, 1).permute(0, 3, 1, 2)
    return tensor.contiguous(memory_format=torch.channels_last)


@onnx_op("Conv", check=check_rank)
def conv(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution; the weight may be any tensor."""
    run = _CONV[_spatial_rank(weight)]
    window: Window = window_of(ctx, x.shape[2:], ctx.integers("kernel_shape") or weight.shape[2:])
    padding, stride = window.begin, window.stride
    sparse = _is_strided_point(weight, stride)
    if sparse or not window.symmetric:
        x = functional.pad(x, window.pads)
        padding = (0,) * len(padding)
    if sparse:
        x = x[_every(stride)]
        stride = (1,) * len(stride)
    x, weight = channels_last(x), channels_last(weight)
    return run(x, weight, bias, stride, padding, window.dilation, ctx.integer("group", 1))


def _is_strided_point(weight: Tensor, stride: tuple[int, ...]) -> bool:
    """Whether a kernel has one tap and a stride; such kernels are computed without the stride.

    With few channels in ``channels_last``, oneDNN's weight gradient of a strided 1x1 kernel writes
    past its buffer: wrong results or a crash (uxlfoundation/oneDNN issue 6035).
    """
    return all(size == 1 for size in weight.shape[2:]) and any(step > 1 for step in stride)


def _every(stride: tuple[int, ...]) -> tuple[Any, ...]:
    """Index of every ``stride``-th element of the spatial axes."""
    return (..., *(slice(None, None, step) for step in stride))


@onnx_op("ConvTranspose", check=check_rank)
def conv_transpose(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Transposed convolution; pads are cropped from, ``output_padding`` is added to the result."""
    rank = _spatial_rank(weight)
    kernel = tuple(weight.shape[2:])
    stride = ctx.integers("strides") or (1,) * rank
    dilation = ctx.integers("dilations") or (1,) * rank
    extra = ctx.integers("output_padding") or (0,) * rank
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    full = [(n - 1) * s + r for n, s, r in zip(x.shape[2:], stride, reach, strict=True)]
    begin, size = _transposed_crop(ctx, tuple(x.shape[2:]), stride, full, extra)
    x, weight = channels_last(x), channels_last(weight)
    sparse = _is_strided_point(weight, stride)
    apart = 1 if sparse else stride
    y = _CONV_TRANSPOSE[rank](x, weight, None, apart, 0, 0, ctx.integer("group", 1), dilation)
    if sparse:
        spread = y.new_zeros((*y.shape[:2], *full))
        spread[_every(stride)] = y
        y = spread
    crop = [
        amount
        for b, n, f in reversed(list(zip(begin, size, full, strict=True)))
        for amount in (-b, n + b - f)
    ]
    if any(crop):
        y = functional.pad(y, crop)
    return y if bias is None else y + bias.reshape(-1, *(1,) * rank)


def _transposed_crop(
    ctx: Context,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    full: list[int],
    extra: tuple[int, ...],
) -> tuple[list[int], list[int]]:
    """Pixels to crop at the start, and the size of the output, per spatial axis.

    Raises:
        ValueError: If ``auto_pad`` asks for more than the windows reach: runtimes disagree on it.
    """
    rank = len(size)
    auto_pad = ctx.text("auto_pad", "NOTSET")
    wanted = ctx.integers("output_shape")
    if wanted is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(size, stride, strict=True))
        if any(w > f + e for w, f, e in zip(wanted, full, extra, strict=True)):
            raise ValueError(
                f"auto_pad {auto_pad} to {wanted} pixels, but the windows reach {full}; set pads "
                "and output_padding instead"
            )
    if wanted is None:
        pads = (ctx.integers("pads") if auto_pad == "NOTSET" else None) or (0,) * (2 * rank)
        lengths = [
            f + e - b - a for f, e, b, a in zip(full, extra, pads[:rank], pads[rank:], strict=True)
        ]
        return list(pads[:rank]), lengths
    wanted = wanted[-rank:]
    totals = [max(0, f + e - w) for f, e, w in zip(full, extra, wanted, strict=True)]
    upper = auto_pad == "SAME_UPPER"
    return [t // 2 if upper else t - t // 2 for t in totals], list(wanted)
