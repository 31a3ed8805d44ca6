"""The teacher computes the float model's outputs, once for each sample if memory allows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from onnx_cgmq.data.source import Batch
from onnx_cgmq.learn import teacher as teachers
from onnx_cgmq.learn.teacher import Teacher

DATA = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


class Model(nn.Module):
    """Takes the place of a mirror and counts its calls."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.output_names = tuple(function(torch.from_numpy(DATA[:2])))
        self.calls = 0

    def run(self, inputs, names):
        self.calls += 1
        outputs = self.function(inputs["x"])
        return {name: outputs[name] for name in names}


def _batch(*indices: int) -> Batch:
    rows = np.array(indices)
    return Batch({"x": DATA[rows]}, None, rows, len(rows))


def _double(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"y": 2 * x, "z": x.sum(dim=1)}


def test_teacher_computes_each_sample_once() -> None:
    model = Model(_double)
    teacher = Teacher(model, 10)
    assert not model.training
    teacher.outputs(_batch(0, 1, 2))
    teacher.outputs(_batch(5, 3, 4))
    assert model.calls == 2
    outputs = teacher.outputs(_batch(4, 0, 2, 5))
    assert model.calls == 2
    np.testing.assert_array_equal(outputs["y"], 2 * DATA[[4, 0, 2, 5]])
    np.testing.assert_allclose(outputs["z"], DATA[[4, 0, 2, 5]].sum(axis=1), rtol=1e-6)
    outputs = teacher.outputs(_batch(5, 6))
    assert model.calls == 3
    np.testing.assert_array_equal(outputs["y"], 2 * DATA[[5, 6]])


def test_samples_that_are_read_anew_are_computed_anew() -> None:
    model = Model(_double)
    teacher = Teacher(model, 10)
    teacher.outputs(_batch(0, 1, 2))
    rows = np.array([0, 1, 2])
    changed = Batch({"x": DATA[rows] + 1}, None, rows, 3, version=1)
    np.testing.assert_array_equal(teacher.outputs(changed)["y"], 2 * (DATA[rows] + 1))
    assert model.calls == 2
    teacher.outputs(changed.split(2)[1])
    assert model.calls == 2
    np.testing.assert_array_equal(teacher.outputs(_batch(0, 1))["y"], 2 * DATA[[0, 1]])


def test_outputs_of_the_teacher_have_no_gradient() -> None:
    model = Model(_double)
    model.weight = nn.Parameter(torch.ones(3))
    model.function = lambda x: {"y": x * model.weight}
    teacher = Teacher(model, 10, ["y"])
    assert not teacher.outputs(_batch(1))["y"].requires_grad
    assert not teacher.outputs(_batch(1))["y"].requires_grad


@pytest.mark.parametrize(
    "function",
    [
        lambda x: {"y": x.sum()},
        lambda x: {"y": x, "mean": x.mean(dim=0)},
        lambda x: {"y": torch.zeros(len(x), len(x))},
    ],
    ids=["scalar", "not by sample", "varying shape"],
)
def test_outputs_that_are_not_per_sample_are_computed_again(function) -> None:
    model = Model(function)
    teacher = Teacher(model, 10)
    for rows in ((0, 1), (2, 3, 4), (0, 1), (2, 3, 4)):
        outputs = teacher.outputs(_batch(*rows))
        expected = function(torch.from_numpy(DATA[list(rows)]))
        assert all(torch.equal(outputs[name], expected[name]) for name in expected)
    assert model.calls == 4


def test_large_outputs_of_the_teacher_are_not_cached(monkeypatch) -> None:
    monkeypatch.setattr(teachers, "_CACHE_LIMIT", 10 * 4 - 1)
    model = Model(_double)
    teacher = Teacher(model, 10)
    for _ in range(3):
        teacher.outputs(_batch(0, 1))
    assert model.calls == 3


def test_teacher_returns_only_what_the_loss_compares() -> None:
    teacher = Teacher(Model(_double), 10, ["z"])
    assert teacher.names == ("z",)
    for _ in range(2):
        assert list(teacher.outputs(_batch(0, 1))) == ["z"]


def test_values_that_are_not_finite_are_counted_once_for_each_sample() -> None:
    def function(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": torch.where(x > 0, x, torch.nan), "z": x.sum(dim=1)}

    teacher = Teacher(Model(function), 10)
    assert not teacher.is_defined
    assert not teacher.undefined_text
    teacher.outputs(_batch(0, 1, 2))
    teacher.outputs(_batch(2, 3))
    teacher.outputs(_batch(0, 3, 1))
    assert teacher.is_defined
    assert teacher.undefined_text == f"'y' ({(DATA[:4] <= 0).sum()} of 12)"
