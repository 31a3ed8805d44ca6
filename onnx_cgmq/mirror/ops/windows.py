"""Sliding windows: the pads and output sizes that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from onnx_cgmq.mirror.core.registry import Context


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes of ``[N, C, ...]``, all numbers explicit.

    Attributes:
        kernel: Taps per axis.
        stride: Step per axis.
        dilation: Distance of taps per axis.
        begin: Padding before every axis.
        end: Padding after every axis.
        overhang: Further padding after every axis that ``ceil_mode`` implies.
        output: Number of window positions per axis.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    overhang: tuple[int, ...]
    output: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Whether both sides are padded alike, without overhang."""
        return self.begin == self.end and not any(self.overhang)

    @property
    def pads(self) -> list[int]:
        """All padding in the order of ``torch.nn.functional.pad``."""
        pairs = zip(self.begin, self.end, self.overhang, strict=True)
        return [size for b, e, o in reversed(list(pairs)) for size in (b, e + o)]


def window_of(
    ctx: Context, size: Sequence[int], kernel: Sequence[int], *, ceil_mode: bool = False
) -> Window:
    """Resolves ``auto_pad``, ``pads``, ``strides``, ``dilations`` and ``ceil_mode``.

    Args:
        ctx: The node.
        size: Spatial size of the input.
        kernel: Taps per axis.
        ceil_mode: Whether a last window may reach beyond the padding; one that would start in it is
            dropped.

    Raises:
        ValueError: If ``auto_pad`` would have to crop, in which runtimes disagree.
    """
    rank = len(size)
    stride = ctx.integers("strides") or (1,) * rank
    dilation = ctx.integers("dilations") or (1,) * rank
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    auto_pad = ctx.text("auto_pad", "NOTSET")
    begin, end = _pads(ctx, auto_pad, size, stride, reach)
    overhang, output = [], []
    for n, b, e, s, r in zip(size, begin, end, stride, reach, strict=True):
        room = n + b + e - r
        count = room // s + 1
        if ceil_mode and room % s and count * s < n + b:
            count += 1
        output.append(count)
        overhang.append(max(0, (count - 1) * s - room))
    return Window(tuple(kernel), stride, dilation, begin, end, tuple(overhang), tuple(output))


def _pads(
    ctx: Context, auto_pad: str, size: Sequence[int], stride: Sequence[int], reach: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(size)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        totals = [(-(-n // s) - 1) * s + r - n for n, s, r in zip(size, stride, reach, strict=True)]
        # Onnxruntime's pools refuse to crop; its convolutions leave one or two pixels unread.
        if min(totals) < (0 if ctx.op_type.endswith("Pool") else -2):
            raise ValueError(
                f"auto_pad {auto_pad} of {tuple(size)} pixels under windows that reach "
                f"{tuple(reach)} with strides {tuple(stride)}; set pads instead"
            )
        totals = [max(0, total) for total in totals]
        less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        return (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    if auto_pad == "VALID":
        return (0,) * rank, (0,) * rank
    pads = ctx.integers("pads") or (0,) * (2 * rank)
    return pads[:rank], pads[rank:]


def pad_window(x: Tensor, window: Window, value: float) -> Tensor:
    """The input with all of the window's padding."""
    return functional.pad(x, window.pads, value=value) if any(window.pads) else x
