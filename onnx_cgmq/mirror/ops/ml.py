"""Operators of classical machine learning (``ai.onnx.ml``) on numbers.

What exported pipelines put before and after a network: scaling, linear models, picking a class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op

DOMAIN = "ai.onnx.ml"


def _vector(ctx: Context, name: str, like: Tensor) -> Tensor:
    """An attribute that is a list of numbers, in float32."""
    return torch.tensor(ctx.attributes[name], dtype=torch.float32, device=like.device)


@onnx_op("ArrayFeatureExtractor", domain=DOMAIN)
def array_feature_extractor(ctx: Context, x: Tensor, indices: Tensor) -> Tensor:
    """Elements along the last axis at the indices."""
    rows = x.unsqueeze(0) if x.dim() == 1 else x
    return rows.index_select(-1, indices.reshape(-1))


@onnx_op("Binarizer", domain=DOMAIN)
def binarizer(ctx: Context, x: Tensor) -> Tensor:
    """1 above a threshold, else 0."""
    return (x > ctx.real("threshold")).to(x.dtype)


@onnx_op("Scaler", domain=DOMAIN)
def scaler(ctx: Context, x: Tensor) -> Tensor:
    """``(x - offset) * scale`` per feature, float32."""
    y = x.to(torch.float32)
    y = y - _vector(ctx, "offset", x) if ctx.has("offset") else y
    return y * _vector(ctx, "scale", x) if ctx.has("scale") else y


@onnx_op("Normalizer", domain=DOMAIN)
def normalizer(ctx: Context, x: Tensor) -> Tensor:
    """Divides rows by their largest element or their norm (as onnxruntime does), unless it is 0."""
    y, norm = x.to(torch.float32), ctx.text("norm", "MAX")
    if norm == "MAX":
        size = y.amax(dim=-1, keepdim=True)
    else:
        size = torch.linalg.vector_norm(y, 1 if norm == "L1" else 2, dim=-1, keepdim=True)
    return y / size.masked_fill(size == 0, 1.0)


@onnx_op("Imputer", domain=DOMAIN)
def imputer(ctx: Context, x: Tensor) -> Tensor:
    """Replaces one value, which may be NaN, by a value per feature."""
    kind = "float" if x.dtype.is_floating_point else "int64"
    values: Any = ctx.attributes[f"imputed_value_{kind}s"]
    replaced: Any = ctx.attributes.get(f"replaced_value_{kind}", 0)
    missing = x.isnan() if replaced != replaced else x == replaced
    return torch.where(missing, torch.tensor(values, dtype=x.dtype, device=x.device), x)


@onnx_op("FeatureVectorizer", domain=DOMAIN)
def feature_vectorizer(ctx: Context, *xs: Tensor) -> Tensor:
    """Joins the features of all inputs, float32."""
    return torch.cat([(x if x.dim() > 1 else x.unsqueeze(0)).to(torch.float32) for x in xs], dim=1)


def _check_transform(ctx: Context) -> str | None:
    transform = ctx.text("post_transform", "NONE")
    if transform not in ("NONE", "SOFTMAX", "LOGISTIC"):
        return f"post_transform {transform}"
    return None


def _transformed(ctx: Context, scores: Tensor) -> Tensor:
    transform = ctx.text("post_transform", "NONE")
    if transform == "SOFTMAX":
        return torch.softmax(scores, dim=1)
    return torch.sigmoid(scores) if transform == "LOGISTIC" else scores


def _scores(ctx: Context, x: Tensor, count: int) -> Tensor:
    """Linear scores ``[batch, count]``."""
    weight = _vector(ctx, "coefficients", x).reshape(count, -1)
    bias = _vector(ctx, "intercepts", x) if ctx.has("intercepts") else None
    rows = x.to(torch.float32)
    return torch.nn.functional.linear(rows if x.dim() > 1 else rows.unsqueeze(0), weight, bias)


@onnx_op("LinearRegressor", domain=DOMAIN, check=_check_transform)
def linear_regressor(ctx: Context, x: Tensor) -> Tensor:
    """A linear model, float32."""
    return _transformed(ctx, _scores(ctx, x, ctx.integer("targets", 1)))


def _check_classes(ctx: Context) -> str | None:
    labels = ctx.integers("classlabels_ints")
    if labels is None:
        return "labels that are strings"
    if len(ctx.attributes.get("intercepts", ())) != len(labels):
        return "other than one row of coefficients and one intercept per class"
    return _check_transform(ctx)


@onnx_op("LinearClassifier", domain=DOMAIN, check=_check_classes)
def linear_classifier(ctx: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """Labels of the largest scores, int64, and the scores of all classes."""
    labels = torch.tensor(ctx.integers("classlabels_ints"), device=x.device)
    scores = _scores(ctx, x, len(labels))
    return labels[scores.argmax(dim=1)], _transformed(ctx, scores)
