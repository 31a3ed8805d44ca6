"""Fourier transforms, windows and mel filters."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES, is_supported
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.host import Number, number

_COSINES = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}
"""Weights of the cosines of 0, 1 and 2 turns."""


def _complex(x: Tensor) -> Tensor:
    """A real tensor ``[..., 1]`` or complex one ``[..., 2]`` without its last axis.

    Torch transforms no 16-bit floats: they become float32.

    Raises:
        ValueError: If the last axis has another size.
    """
    if x.shape[-1] not in (1, 2):
        raise ValueError(f"the last axis of shape {tuple(x.shape)} must be 1 (real) or 2 (complex)")
    wide = x if x.dtype is torch.float64 else x.to(torch.float32)
    return torch.view_as_complex(wide.contiguous()) if x.shape[-1] == 2 else wide.squeeze(-1)


def _spectrum(signal: Tensor, length: int | None, axis: int, *, onesided: bool) -> Tensor:
    """Forward transform, ``[..., 2]``; one-sided up to the middle frequency."""
    if not onesided:
        return torch.view_as_real(torch.fft.fft(signal, length, axis))
    if signal.is_complex():
        raise ValueError("a one-sided transform needs a real signal")
    return torch.view_as_real(torch.fft.rfft(signal, length, axis))


def _transform(ctx: Context, x: Tensor, length: Number | None, axis: int) -> Tensor:
    signal, axis = _complex(x), axis % x.dim()
    n = None if length is None else int(number(length))
    onesided = ctx.flag("onesided")
    if not ctx.flag("inverse"):
        y = _spectrum(signal, n, axis, onesided=onesided)
    elif onesided:
        y = torch.fft.irfft(signal, n, axis).unsqueeze(-1)
    else:
        y = torch.view_as_real(torch.fft.ifft(signal, n, axis))
    return y.to(x.dtype)


@onnx_op("DFT", since=17, host=(1,))
def dft_attribute(ctx: Context, x: Tensor, length: Number | None = None) -> Tensor:
    """Discrete Fourier transform along an axis given as an attribute."""
    return _transform(ctx, x, length, ctx.integer("axis", 1))


@onnx_op("DFT", since=20, host=(1, 2))
def dft(
    ctx: Context, x: Tensor, length: Number | None = None, axis: Number | None = None
) -> Tensor:
    """Discrete Fourier transform along an axis, the last of the signal by default."""
    return _transform(ctx, x, length, -2 if axis is None else int(number(axis)))


@onnx_op("STFT", since=17, host=(1, 3))
def stft(
    ctx: Context,
    signal: Tensor,
    step: Number,
    window: Tensor | None = None,
    length: Number | None = None,
) -> Tensor:
    """Fourier transforms of windowed frames, ``[batch, frame, frequency, 2]``.

    Raises:
        ValueError: If window and frame differ in length.
    """
    if length is not None:
        size = int(number(length))
    else:
        size = signal.shape[1] if window is None else len(window)
    frames = _complex(signal).unfold(1, size, int(number(step)))
    if window is not None:
        if len(window) != size:
            raise ValueError(f"a window of {len(window)} samples for frames of {size}")
        frames = frames * window.to(frames.real.dtype if frames.is_complex() else frames.dtype)
    return _spectrum(frames, None, -1, onesided=ctx.flag("onesided", True)).to(signal.dtype)


def _check_output(ctx: Context) -> str | None:
    target = ir.DataType(ctx.integer("output_datatype", 1))
    return None if is_supported(target) else f"no tensors of type {target.name}"


def _output_dtype(ctx: Context) -> torch.dtype:
    return TORCH_DTYPES[ir.DataType(ctx.integer("output_datatype", 1))]


@onnx_op(*_COSINES, since=17, host=(0,), check=_check_output)
def cosine_window(ctx: Context, size: Number) -> Tensor:
    """A window that is a sum of cosines, periodic or symmetric."""
    count = int(number(size))
    turns = torch.arange(count, dtype=torch.float64) / (
        count if ctx.flag("periodic", True) else count - 1
    )
    a, b, c = _COSINES[ctx.op_type]
    window = a - b * torch.cos(2 * math.pi * turns) + c * torch.cos(4 * math.pi * turns)
    return window.to(torch.float32).to(ctx.device, _output_dtype(ctx))


@onnx_op("MelWeightMatrix", since=17, host=(0, 1, 2, 3, 4), check=_check_output)
def mel_weight_matrix(
    ctx: Context, bands: Number, dft_length: Number, rate: Number, low: Number, high: Number
) -> Tensor:
    """Triangles with peak 1 over the bins of a one-sided spectrum, ``[bins, bands]``.

    Their corners are evenly spaced on the mel scale, ``2595 * log10(1 + f / 700)``, and rounded
    down to bins.
    """
    size, count = int(number(dft_length)), int(number(bands))
    low_mel, high_mel = (2595 * math.log10(1 + number(edge) / 700) for edge in (low, high))
    mels = low_mel + torch.arange(count + 2, dtype=torch.float64) * (
        (high_mel - low_mel) / (count + 2)
    )
    hertz = 700 * (10 ** (mels / 2595) - 1)
    corners = torch.floor((size + 1) * hertz / number(rate))
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    bins = torch.arange(size // 2 + 1, dtype=torch.float64).unsqueeze(1)
    rising = (bins - left) / (centre - left).clamp_min(1)
    falling = (right - bins) / (right - centre).clamp_min(1)
    inside = torch.where(bins < centre, rising, falling).clamp_min(0)
    return torch.where(bins == centre, 1.0, inside).to(ctx.device, _output_dtype(ctx))
