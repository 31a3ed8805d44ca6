"""Losses: from labels and target values, from the float model as teacher, or the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnx_cgmq.data.checks import LABEL
from onnx_cgmq.errors import ConfigError, DataError
from onnx_cgmq.learn.batches import Answers
from onnx_cgmq.learn.class_targets import NO_CLASS
from onnx_cgmq.learn.loss_function import LossFunction, Outputs, OwnLoss, is_own

_TEMPERATURE = 4.0
"""The temperature of the softmax in the Kullback-Leibler divergence (Hinton et al., arXiv
1503.02531). Its value is our choice."""

_SUM_TOLERANCE = 1e-3
"""How far a sum of probabilities may be from 1."""

_SMALLEST_PROBABILITY = 1e-12
"""The smallest probability of which a logarithm is taken, so that it is finite."""

_LEAST_VARIANCE = 1e-3
"""The smallest variance by which an error is divided, as a share of the mean square. A single
sample may have no variance at all. Our choice."""

_NO_VARIANCE = 1e-12
"""The smallest variance if all values are zero."""

_NO_SCORE = -1e9
"""A score whose probability is zero, though it is finite."""


@dataclass(frozen=True)
class ClassOutput:
    """The output with class scores ``[N, classes]`` for N samples.

    Attributes:
        name: Name of the output.
        is_probability: Whether the scores are probabilities, as after a Softmax.
    """

    name: str
    is_probability: bool

    def logits(self, outputs: Outputs) -> Tensor:
        """Returns scores whose softmax is the probability of each class."""
        scores = outputs[self.name]
        return _log(scores) if self.is_probability else scores


def class_output(outputs: Outputs, rows: int) -> ClassOutput | None:
    """Returns the output with class scores: the first float output ``[rows, C]`` with C > 1.

    Args:
        outputs: Outputs by name, for a batch.
        rows: Number of samples in the batch.

    Returns:
        The output, or ``None`` if there is none of that shape.
    """
    for name, value in outputs.items():
        is_matrix = value.is_floating_point() and value.dim() == 2
        if is_matrix and len(value) == rows and value.shape[1] > 1:
            return ClassOutput(name, _are_probabilities(value))
    return None


def teacher_loss(classes: ClassOutput | None, outputs: Outputs, teacher: Outputs) -> Tensor:
    """Returns the distance to the float model's outputs, summed over all float outputs.

    For class scores, and for probabilities along the last axis (text recognition has a class for
    each position), it is the Kullback-Leibler divergence at temperature 4, times the squared
    temperature (Hinton et al., arXiv 1503.02531). For all other outputs it is the squared error
    relative to the output's variance. Elements that are not finite in the float model are left out.

    Args:
        classes: The output with class scores, if there is one.
        outputs: Outputs by name, for a batch.
        teacher: The float model's outputs for the same batch.
    """
    total = torch.zeros(())
    for name, value in outputs.items():
        if not value.is_floating_point():
            continue
        target = teacher[name]
        if classes is not None and name == classes.name:
            total = total + _divergence(classes.logits(outputs), classes.logits(teacher))
        elif target.dim() > 2 and _are_probabilities(target):
            total = total + _divergence(_log(value), _log(target))
        else:
            value, target = _defined(value, target)
            total = total + _relative_error(value, target)
    return total


def _defined(value: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The elements of an output that the teacher defines: those that are finite there.

    Where the teacher reaches an infinity (the logarithm of zero), the mirror may reach it in other
    places too. There it counts as the last finite value that the teacher has on that side.
    """
    known = torch.isfinite(target)
    if known.all() or target.shape != value.shape:
        return value, target
    outside = target[~known]
    value, target = value[known], target[known]
    if target.numel():
        for end, last in ((-math.inf, target.min()), (math.inf, target.max())):
            if (outside == end).any():
                value = torch.where(value == end, last, value)
    return value, target


def _divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    known = torch.isfinite(teacher)
    if not known.all():  # such a class has no part in either distribution
        logits = torch.where(known, logits, _NO_SCORE)
        teacher = torch.where(known, teacher, _NO_SCORE)
    log_p = F.log_softmax(logits / _TEMPERATURE, dim=-1)
    log_q = F.log_softmax(teacher / _TEMPERATURE, dim=-1)
    divergence = F.kl_div(log_p, log_q, reduction="none", log_target=True)
    return divergence.sum(dim=-1).mean() * _TEMPERATURE**2


def _are_probabilities(value: Tensor) -> bool:
    """Says whether a float tensor holds probabilities along its last axis, at least two of them.

    Rows with NaN, as of a softmax in which everything is masked, don't count.
    """
    if value.shape[-1] < 2:
        return False
    sums = value.sum(dim=-1)
    if sums.isnan().any():
        value, sums = value[~sums.isnan()], sums[~sums.isnan()]
    return bool(
        sums.numel()
        and (value >= 0).all()
        and torch.allclose(sums, torch.ones_like(sums), atol=_SUM_TOLERANCE)
    )


def _log(probabilities: Tensor) -> Tensor:
    return torch.log(probabilities.clamp_min(_SMALLEST_PROBABILITY))


def target_loss(value: Tensor, target: Tensor, teacher: Tensor | None = None) -> Tensor:
    """Returns the distance of an output from its target values.

    Integer target values ``[N, ...]`` for an output ``[N, C, ...]`` are class indexes; for these
    it is the cross-entropy, with the output as logits. Otherwise it is the squared error relative
    to the variance of the target values.

    Args:
        value: The output.
        target: What it should be.
        teacher: The float model's output: where it is not finite, the output doesn't count.

    Raises:
        DataError: The shapes don't fit.
    """
    is_classes = not target.is_floating_point() and value.dim() == target.dim() + 1
    if is_classes and (len(value), *value.shape[2:]) == target.shape:
        return _cross_entropy(value, target, value if teacher is None else teacher)
    if value.numel() != target.numel() or len(value) != len(target):
        raise DataError(
            f"target values have shape {list(target.shape)}, their output {list(value.shape)}; "
            "give values of the output's shape, or class indexes of that shape without axis 1"
        )
    target = target.reshape(value.shape).to(value.dtype)
    if teacher is not None and teacher.shape == value.shape:
        known = torch.isfinite(teacher)
        if not known.all():
            value, target = value[known], target[known]
    return _relative_error(value, target)


def _cross_entropy(logits: Tensor, classes: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy where there is a class, and the teacher has a score for it and no NaN."""
    known = classes != NO_CLASS
    if teacher.shape == logits.shape and not torch.isfinite(teacher).all():
        score = teacher.gather(1, classes.clamp_min(0).unsqueeze(1)).squeeze(1)
        known &= torch.isfinite(score) & ~teacher.isnan().any(dim=1)
    if known.all():
        return F.cross_entropy(logits, classes)
    rows = logits.movedim(1, -1)[known]
    return F.cross_entropy(rows, classes[known]) if len(rows) else rows.sum()


def _relative_error(value: Tensor, target: Tensor) -> Tensor:
    if not target.numel():
        return value.sum()  # zero, and yet with a gradient
    floor = _LEAST_VARIANCE * target.square().mean() + _NO_VARIANCE
    scale = torch.maximum(target.var(unbiased=False), floor)
    return F.mse_loss(value, target) / scale


def make_loss(
    setting: str | Callable[..., Any],
    classes: ClassOutput | None,
    has_labels: bool,
    targets: Collection[str] = (),
    outputs: Collection[str] = (),
) -> LossFunction:
    """Makes the loss that a setting names.

    Args:
        setting: ``auto``, ``labels``, ``teacher``, ``package.module:function`` or a callable.
        classes: The output with class scores, if there is one.
        has_labels: Whether the data has labels.
        targets: Names of the outputs for which the data has target values.
        outputs: Names of the tensors that the loss may compare.

    Returns:
        ``loss(outputs, labels, teacher_outputs)``; see :data:`LossFunction`.

    Raises:
        DataError: The setting is ``labels``, but the data has no target values, and it has no
            labels or the model no class scores. Or there are target values for an output that has
            no gradient to a weight.
        ConfigError: The setting is unknown, or the user's function can't be imported.
    """
    if is_own(setting):
        return OwnLoss.of(setting)
    if setting not in ("auto", "labels", "teacher"):
        raise ConfigError(
            f"loss {setting!r} is unknown; use 'auto', 'labels', 'teacher' or "
            "'package.module:function' (in Python also the function itself)"
        )
    if setting == "labels" and not (targets or (has_labels and classes is not None)):
        raise DataError(
            "loss 'labels' needs an array 'label' in the data and an output of shape "
            "[batch, classes], or arrays named like outputs; use loss 'teacher' to learn from the "
            "float model instead"
        )
    unreachable = sorted(set(targets) - set(outputs))
    if unreachable and setting != "teacher":
        raise DataError(
            f"the data has target values for {', '.join(unreachable)}, but no gradient comes back "
            "from there; leave them out, or use loss 'teacher'"
        )
    # Without labels a float matrix need not hold class scores. It may be an embedding.
    known = classes if classes is not None and (has_labels or classes.is_probability) else None
    use_labels = setting != "teacher"
    use_teacher = setting != "labels"

    def loss(outputs: Outputs, labels: Answers, teacher: Outputs) -> Tensor:
        total = torch.zeros(())
        if use_labels and labels is not None:
            wanted = {LABEL: labels} if isinstance(labels, Tensor) else labels
            for name, target in wanted.items():
                if name != LABEL:
                    total = total + target_loss(outputs[name], target, teacher.get(name))
                elif classes is not None:
                    scores = classes.logits(outputs)
                    taught = classes.logits(teacher) if classes.name in teacher else scores
                    total = total + _cross_entropy(scores, target, taught)
        if use_teacher:
            total = total + teacher_loss(known, outputs, teacher)
        return total

    return loss
