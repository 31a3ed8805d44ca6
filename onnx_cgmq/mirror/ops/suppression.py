"""NonMaxSuppression."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.host import Number, number


def _corners(boxes: Tensor, *, centred: bool) -> Tensor:
    """Smaller and larger corner of boxes ``[..., 2, 2]``, given as corners or centre and size."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centred:
        return torch.stack((first - second / 2, first + second / 2), dim=-2)
    return torch.stack((torch.minimum(first, second), torch.maximum(first, second)), dim=-2)


def _area(corners: Tensor) -> Tensor:
    return (corners[..., 1, :] - corners[..., 0, :]).clamp_min(0).prod(dim=-1)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union; 0, or NaN for empty boxes, if they don't meet."""
    low = torch.maximum(a[..., 0, :], b[..., 0, :])
    high = torch.minimum(a[..., 1, :], b[..., 1, :])
    shared = _area(torch.stack((low, high), dim=-2))
    return shared / (_area(a) + _area(b) - shared)


@onnx_op("NonMaxSuppression", since=10, host=(2, 3, 4))
def non_max_suppression(
    ctx: Context,
    boxes: Tensor,
    scores: Tensor,
    limit: Number | None = None,
    max_overlap: Number | None = None,
    min_score: Number | None = None,
) -> Tensor:
    """``[batch, class, box]`` of the boxes kept, int64, without a gradient.

    In every class the best box is kept, and those that overlap it by more than a threshold are
    dropped, until ``limit`` boxes are kept. All classes of all samples run at the same time.
    """
    classes = scores.shape[1]
    most = 0 if limit is None else int(number(limit))
    threshold = 0.0 if max_overlap is None else number(max_overlap)
    flat = scores.detach().flatten(0, 1)
    passing = torch.ones_like(flat, dtype=torch.bool)
    if min_score is not None:
        passing = flat > number(min_score)
    # Most classes and boxes have no score that passes: the rest is sorted and compared.
    rows, columns = (passing.any(dim=axis).nonzero().squeeze(1) for axis in (1, 0))
    order = flat[rows][:, columns].argsort(dim=1, descending=True, stable=True)
    alive = passing[rows][:, columns].gather(1, order)
    longest = int(alive.sum(dim=1).max()) if alive.numel() else 0
    order, alive = columns[order[:, :longest]], alive[:, :longest]
    samples = (rows // classes).unsqueeze(1)
    corners = _corners(boxes.detach(), centred=ctx.flag("center_point_box"))[samples, order]
    positions = torch.arange(longest, device=order.device)
    lines = torch.arange(len(rows), device=order.device).unsqueeze(1)
    kept = torch.zeros_like(alive)
    for _ in range(min(most, longest)):
        if not alive.any():
            break
        best = alive.to(torch.uint8).argmax(dim=1, keepdim=True)
        chosen = alive & (positions == best)
        kept |= chosen
        alive &= ~chosen & ~(_overlap(corners[lines, best], corners) > threshold)
    line, position = kept.nonzero().unbind(1)
    row = rows[line]
    return torch.stack((row // classes, row % classes, order[line, position]), dim=1)
