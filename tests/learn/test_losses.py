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


def _finite_gradient(loss: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, value)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    return gradient


@pytest.mark.parametrize("undefined", [float("nan"), float("inf"), -float("inf")])
def test_what_the_teacher_does_not_define_is_left_out(undefined) -> None:
    teacher, value = OTHER.clone(), LOGITS.clone()
    teacher[:, 2] = value[:, 2] = undefined
    value.requires_grad_()
    loss = teacher_loss(None, {"y": value}, {"y": teacher})
    kept = [0, 1, 3]
    torch.testing.assert_close(
        loss, teacher_loss(None, {"y": LOGITS[:, kept]}, {"y": OTHER[:, kept]})
    )
    assert not _finite_gradient(loss, value)[:, 2].any()


def test_a_banned_class_has_no_part_in_the_divergence() -> None:
    teacher, value = OTHER.clone(), LOGITS.clone()
    teacher[:, 2] = value[:, 2] = -torch.inf
    value.requires_grad_()
    loss = make_loss("auto", CLASSES, True)({"y": value}, LABELS, {"y": teacher})
    assert not _finite_gradient(loss, value)[:, 2].any()
    kept, known = [0, 1, 3], LABELS != 2
    few, others = {"y": LOGITS[:, kept]}, {"y": OTHER[:, kept]}
    classes = torch.tensor([0, 1, 2, 0, 1])  # the same without class 2
    wanted = teacher_loss(CLASSES, few, others) + F.cross_entropy(few["y"][known], classes)
    torch.testing.assert_close(loss, wanted)


def test_rows_that_are_masked_completely_do_not_count() -> None:
    teacher, value = F.softmax(OTHER, dim=1), F.softmax(LOGITS, dim=1)
    soft = class_output({"y": teacher}, 6)
    teacher[1] = value[1] = torch.nan
    assert class_output({"y": teacher}, 6) == soft == ClassOutput("y", is_probability=True)
    value.requires_grad_()
    loss = make_loss("auto", soft, True)({"y": value}, LABELS, {"y": teacher})
    assert not _finite_gradient(loss, value)[1].any()
    nothing = torch.full_like(teacher, torch.nan)
    empty = make_loss("auto", soft, True)({"y": value}, LABELS, {"y": nothing})
    assert empty.item() == 0
    assert not _finite_gradient(empty, value).any()


def test_targets_do_not_count_where_the_teacher_is_not_finite() -> None:
    teacher, value = OTHER.clone(), LOGITS.clone()
    teacher[0, 0] = value[0, 0] = torch.nan
    assert torch.isfinite(target_loss(value, OTHER, teacher))


def test_the_mirror_may_reach_an_infinity_where_the_teacher_does_in_other_places() -> None:
    teacher = torch.tensor([[-torch.inf, -3.0], [1.0, 2.0]])
    value = torch.tensor([[0.0, -3.0], [-torch.inf, 2.0]])
    as_lowest = torch.tensor([[0.0, -3.0], [-3.0, 2.0]])
    loss = teacher_loss(None, {"y": value}, {"y": teacher})
    torch.testing.assert_close(loss, teacher_loss(None, {"y": as_lowest}, {"y": teacher}))
    finite = torch.tensor([[0.0, -3.0], [1.0, 2.0]])
    assert not torch.isfinite(teacher_loss(None, {"y": value}, {"y": finite}))
