"""Operators that exporters wrote in onnxruntime's domain before the standard had them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, find_operator, onnx_op
from onnx_cgmq.mirror.ops import grid, indexing  # noqa: F401  (registers what is found below)

_DOMAIN: Final = "com.microsoft"
_SAME: Final = {"GatherND": 12, "GridSample": 16, "Trilu": 14}
"""What became an operator of the standard as it was, and the opset in which it did."""

for _name, _opset in _SAME.items():
    _standard = find_operator("", _name, _opset)
    assert _standard is not None
    onnx_op(_name, domain=_DOMAIN, host=_standard.host, check=_standard.check)(_standard.handler)


@onnx_op("ExpandDims", domain=_DOMAIN, host=(1,))
def expand_dims(ctx: Context, x: Tensor, axis: int | list[int]) -> Tensor:
    """Inserts an axis of length 1."""
    return x.unsqueeze(axis[0] if isinstance(axis, list) else axis)


@onnx_op("Inverse", domain=_DOMAIN)
def inverse(ctx: Context, x: Tensor) -> Tensor:
    """Inverses of square matrices."""
    wide = x if x.dtype is torch.float64 else x.to(torch.float32)
    result: Tensor = torch.linalg.inv(wide).to(x.dtype)
    return result


def _check_metric(ctx: Context) -> str | None:
    metric = ctx.text("metric", "sqeuclidean")
    return None if metric in ("euclidean", "sqeuclidean") else f"metric '{metric}'"


@onnx_op("CDist", domain=_DOMAIN, check=_check_metric)
def pairwise_distances(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Distances between the rows of two matrices."""
    distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distances if ctx.text("metric") == "euclidean" else distances.square()
