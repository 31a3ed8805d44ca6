"""Losses from labels, target values and teacher, the user's own loss, and their errors."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from onnx_cgmq.errors import ConfigError, DataError
from onnx_cgmq.learn.losses import (
    ClassOutput,
    class_output,
    make_loss,
    target_loss,
    teacher_loss,
)

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
CLASSES = ClassOutput("y", is_probability=False)


def test_class_scores_are_found_among_the_outputs() -> None:
    images = torch.zeros(6, 3, 8, 8)
    one = torch.zeros(6, 1)
    indices = torch.zeros(6, 4, dtype=torch.int64)
    outputs = {"image": images, "one": one, "index": indices, "y": LOGITS, "z": OTHER}
    assert class_output(outputs, 6) == CLASSES
    probabilities = {"y": F.softmax(LOGITS, dim=1)}
    assert class_output(probabilities, 6) == ClassOutput("y", is_probability=True)
    assert class_output({"image": images, "one": one, "index": indices}, 6) is None
    assert class_output({}, 6) is None
    assert class_output({"boxes": LOGITS}, 3) is None


def test_probabilities_and_logits_give_the_same_losses() -> None:
    soft = ClassOutput("y", is_probability=True)
    teacher, as_probability = {"y": OTHER}, {"y": F.softmax(OTHER, dim=1)}
    for setting in ("labels", "teacher", "auto"):
        plain = make_loss(setting, CLASSES, True)({"y": LOGITS}, LABELS, teacher)
        other = make_loss(setting, soft, True)(
            {"y": F.softmax(LOGITS, dim=1)}, LABELS, as_probability
        )
        torch.testing.assert_close(plain, other)


def test_a_probability_of_zero_has_a_finite_loss_and_gradient() -> None:
    soft = ClassOutput("y", is_probability=True)
    scores = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = make_loss("auto", soft, True)({"y": scores}, torch.tensor([1]), {"y": scores.detach()})
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


def test_auto_adds_the_losses_of_labels_and_teacher() -> None:
    outputs, teacher = {"y": LOGITS}, {"y": OTHER}
    labels = make_loss("labels", CLASSES, True)(outputs, LABELS, teacher)
    taught = make_loss("teacher", CLASSES, True)(outputs, LABELS, teacher)
    torch.testing.assert_close(labels, F.cross_entropy(LOGITS, LABELS))
    torch.testing.assert_close(taught, teacher_loss(CLASSES, outputs, teacher))
    both = make_loss("auto", CLASSES, True)(outputs, LABELS, teacher)
    torch.testing.assert_close(both, labels + taught)
    without_labels = make_loss("auto", CLASSES, False)(outputs, None, teacher)
    torch.testing.assert_close(without_labels, teacher_loss(None, outputs, teacher))
    soft = ClassOutput("y", is_probability=True)
    outputs = {"y": F.softmax(LOGITS, dim=1)}
    teacher = {"y": F.softmax(OTHER, dim=1)}
    without_labels = make_loss("auto", soft, False)(outputs, None, teacher)
    torch.testing.assert_close(without_labels, teacher_loss(soft, outputs, teacher))


def test_teacher_loss_of_the_teachers_own_outputs_is_zero() -> None:
    outputs = {"y": LOGITS, "features": torch.randn(6, 2, 3), "count": torch.tensor([3])}
    assert abs(float(teacher_loss(CLASSES, outputs, outputs))) < 1e-6
    assert float(teacher_loss(CLASSES, {**outputs, "y": OTHER}, outputs)) > 0.01


def test_teacher_loss_is_relative_to_the_variance_of_an_output() -> None:
    generator = torch.Generator().manual_seed(2)
    target = torch.randn(6, 5, 2, generator=generator)
    value = target + 0.1 * torch.randn(6, 5, 2, generator=generator)
    losses = [
        float(teacher_loss(None, {"y": scale * value}, {"y": scale * target}))
        for scale in (1e-3, 1.0, 1e3)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)
    assert losses[0] == pytest.approx(0.01, rel=0.5)
    constant = {"y": torch.ones(3, 2, 2)}
    assert float(teacher_loss(None, constant, constant)) == 0


def test_teacher_loss_of_probabilities_per_position_is_a_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 3, 4, 5, generator=generator)
    found = teacher_loss(None, {"y": logits.softmax(-1)}, {"y": teacher.softmax(-1)})
    classes = ClassOutput("y", is_probability=False)
    rows = {"y": logits.reshape(12, 5)}
    expected = teacher_loss(classes, rows, {"y": teacher.reshape(12, 5)})
    torch.testing.assert_close(found, expected)


def test_auto_without_class_scores_is_the_teacher_loss() -> None:
    outputs, teacher = {"y": torch.ones(6, 1)}, {"y": torch.arange(6.0).reshape(6, 1)}
    loss = make_loss("auto", None, True)(outputs, LABELS, teacher)
    torch.testing.assert_close(loss, teacher_loss(None, outputs, teacher))


@pytest.mark.parametrize(("classes", "has_labels"), [(CLASSES, False), (None, True)])
def test_loss_labels_without_labels_or_class_scores_is_refused(classes, has_labels) -> None:
    with pytest.raises(DataError, match=r"'label'.*use loss 'teacher'"):
        make_loss("labels", classes, has_labels)


def test_the_loss_may_be_a_function_of_the_user(monkeypatch) -> None:
    module = ModuleType("own_losses")
    module.squared = lambda outputs, labels, teacher: (outputs["y"] - teacher["y"]).square().sum()
    module.number = 3
    monkeypatch.setitem(sys.modules, "own_losses", module)
    loss = make_loss("own_losses:squared", None, False)({"y": LOGITS}, None, {"y": OTHER})
    torch.testing.assert_close(loss, (LOGITS - OTHER).square().sum())
    with pytest.raises(ConfigError, match="has no 'missing'"):
        make_loss("own_losses:missing", None, False)
    with pytest.raises(ConfigError, match="can't be called"):
        make_loss("own_losses:number", None, False)


def test_a_loss_in_a_missing_module_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't import 'no_such_module_here'"):
        make_loss("no_such_module_here:loss", CLASSES, True)


@pytest.mark.parametrize("setting", ["hinge", "json:", ":loss", "a b:c", ""])
def test_an_unknown_loss_is_refused_with_the_choices(setting) -> None:
    with pytest.raises(ConfigError, match=r"'auto', 'labels', 'teacher' or 'package\.module"):
        make_loss(setting, CLASSES, True)


def test_losses_of_target_values_are_added_to_labels_and_teacher() -> None:
    outputs = {"y": LOGITS, "size": LOGITS[:, :1], "kind": OTHER}
    sizes, kinds = torch.arange(6.0), LABELS
    answers = {"size": sizes, "kind": kinds, "label": LABELS}
    loss = make_loss("labels", CLASSES, True, ["size", "kind"], outputs)(outputs, answers, {})
    expected = (
        F.cross_entropy(LOGITS, LABELS)
        + F.mse_loss(LOGITS[:, 0], sizes) / sizes.var(unbiased=False)
        + F.cross_entropy(OTHER, kinds)
    )
    torch.testing.assert_close(loss, expected)
    both = make_loss("auto", CLASSES, True, ["size", "kind"], outputs)(outputs, answers, outputs)
    torch.testing.assert_close(both, expected)  # its own teacher adds nothing


def test_target_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"target values have shape \[6, 3\], their output \[6, 4\]"
    ):
        target_loss(LOGITS, torch.zeros(6, 3))
    with pytest.raises(DataError, match="target values for boxes, but no gradient"):
        make_loss("auto", CLASSES, False, ["boxes"], ["y"])
    make_loss("teacher", CLASSES, False, ["boxes"], ["y"])
