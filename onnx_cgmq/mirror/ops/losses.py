"""Losses inside a graph."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op


@onnx_op("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(
    ctx: Context, log_prob: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Minus the log-probability of the target class, weighted, then reduced.

    The mean is weighted, and leaves out targets that equal ``ignore_index``. The weights have a
    gradient, which torch's own loss lacks.
    """
    target = target.to(torch.int64)
    ignored = target == ctx.integer("ignore_index") if ctx.has("ignore_index") else None
    classes = target if ignored is None else target.masked_fill(ignored, 0)
    loss = -log_prob.gather(1, classes.unsqueeze(1)).squeeze(1)
    scale = None if weight is None else weight[classes]
    if ignored is not None:
        scale = torch.ones_like(loss) if scale is None else scale
        scale = scale.masked_fill(ignored, 0.0)
        loss = loss.masked_fill(ignored, 0.0)
    loss = loss if scale is None else loss * scale
    reduction = ctx.text("reduction", "mean")
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if scale is None else loss.sum() / scale.sum()


@onnx_op("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy_loss(
    ctx: Context, scores: Tensor, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of the softmax over axis 1, and the log-probabilities."""
    log_prob = torch.log_softmax(scores, dim=1)
    return negative_log_likelihood_loss(ctx, log_prob, labels, weights), log_prob
