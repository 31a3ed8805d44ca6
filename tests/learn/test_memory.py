"""Memory is foreseen: training steps are measured, and computed in micro-batches that fit."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq import Result
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import Notice, StageStarted
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn import memory, opened_run
from onnx_cgmq.learn.memory import StepMemory, is_by_sample, measure_step
from onnx_cgmq.mirror.module import Mirror
from tests.support.toys import mlp, toy_data


def parse(body: str, x: str = "float[n, 8] x", y: str = "float[n, k] y") -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({x}) => ({y}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def measured(model: onnx.ModelProto, x: np.ndarray) -> StepMemory:
    gated = insert_gates(model, target="generic")
    return measure_step(Mirror(gated), open_data({"x": x}, gated))


def samples(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)


def test_a_step_is_measured_by_what_it_keeps() -> None:
    body = "h = MatMul (x, w)  a = Relu (h)  y = MatMul (a, w)"
    short = measured(parse(body, "float[n, t, 8] x", "float[n, t, 8] y"), samples(3, 100, 8))
    long = measured(parse(body, "float[n, t, 8] x", "float[n, t, 8] y"), samples(3, 200, 8))
    assert long.sample == 2 * short.sample
    assert long.fixed == short.fixed
    assert 4 * 100 * 8 * 4 < short.sample < 4 * 100 * 8 * 20  # some ten values of 4 bytes
    assert 4 * 64 <= short.fixed < 4 * 64 * 8


def test_nothing_that_was_run_to_measure_a_step_stays() -> None:
    model = parse("h = MatMul (x, w)  a = Relu (h)  y = MatMul (a, w)")
    gated = insert_gates(model, target="generic")
    mirror, seen = Mirror(gated), []
    for name in mirror.tensors_of(Role.ACTIVATION):
        mirror.quantizers[name].register_forward_hook(
            lambda _, __, results: seen.append(weakref.ref(results[0]))
        )
    measure_step(mirror, open_data({"x": samples(3, 8)}, gated))
    assert seen
    assert all(tensor() is None for tensor in seen)


def test_as_many_samples_as_fit() -> None:
    step = StepMemory(fixed=100, sample=10, most=1000)
    assert [step.samples_within(limit) for limit in (150, 105, 10**6, None)] == [5, 1, 90, 90]


@pytest.mark.parametrize("length", [3, 400])
def test_the_largest_sample_is_measured(tmp_path, length) -> None:
    for index, t in enumerate((3, length, 5)):
        np.savez(tmp_path / f"{index}.npz", x=samples(1, t, 8))
    gated = insert_gates(parse("y = MatMul (x, w)", "float[n, t, 8] x", "float[n, t, 8] y"))
    step = measure_step(Mirror(gated), open_data(tmp_path, gated))
    assert step.sample >= 4 * 8 * max(length, 5)


def test_a_sample_that_does_not_fit_is_refused_before_it_is_kept(monkeypatch) -> None:
    body = "h = MatMul (x, w)  a = Relu (h)  y = MatMul (a, w)"
    model, x = parse(body, "float[n, t, 8] x", "float[n, t, 8] y"), samples(4, 400, 8)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 40_000)
    with pytest.raises(ModelError, match=r"training step on a single sample takes more than"):
        measured(model, x)
    events: list[Any] = []
    with pytest.raises(ModelError, match=r"are left for it; free some, or run on a machine"):
        quantize(model, {"x": x}, "5%", progress=events.append)
    assert not [event for event in events if not isinstance(event, (Notice, StageStarted))]


def test_weights_that_do_not_fit_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda _: 500)
    with pytest.raises(ModelError, match=r"keeps 0\.0 GB of weights and their gradients, but only"):
        measured(parse("y = MatMul (x, w)"), samples(4, 8))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = MatMul (x, w)", True),
        ("h = MatMul (x, w)  y = Transpose <perm = [1, 0]> (h)", False),
        ("h = MatMul (x, w)  y = ReduceSum <keepdims = 0> (h)", False),
        ("h = MatMul (x, w)  m = Softmax <axis = 0> (h)  y = Identity (m)", False),
    ],
)
def test_samples_that_depend_on_each_other_are_not_computed_apart(body, expected) -> None:
    gated = insert_gates(parse(body, y="float y" if "ReduceSum" in body else "float[n, k] y"))
    assert is_by_sample(Mirror(gated), open_data({"x": samples(4, 8)}, gated)) is expected


def _limit_to(monkeypatch, count: int, model: onnx.ModelProto, data: dict[str, np.ndarray]) -> None:
    """Makes training steps take no more than those on ``count`` samples."""
    gated = insert_gates(model)
    step = measure_step(Mirror(gated), open_data(data, gated))
    monkeypatch.setattr(opened_run, "STEP_BYTES", step.fixed + count * step.sample)


def _trained(**settings: Any) -> tuple[Result, list[str]]:
    notices: list[str] = []

    def show(event: object) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    result = quantize(
        mlp(), toy_data(mlp()), "4%", epochs=4, batch_size=32, progress=show, **settings
    )
    return result, [notice for notice in notices if "computed at once" in notice]


@pytest.mark.parametrize("direction", ["fisher", "gradient_magnitude"])
def test_micro_batches_learn_what_batches_learn(monkeypatch, direction) -> None:
    """The loss divides by the variance of the batch, which no micro-batch has."""
    settings = {"direction": direction, "loss": "teacher"}
    whole, no_notices = _trained(**settings)
    _limit_to(monkeypatch, 5, mlp(), toy_data(mlp()))
    apart, notices = _trained(**settings)
    assert not no_notices
    assert notices == ["batches of 32 samples need much memory: 5 are computed at once"]
    assert whole.plan.tensors.keys() == apart.plan.tensors.keys()
    for name, tensor in whole.plan.tensors.items():
        np.testing.assert_array_equal(tensor.widths, apart.plan.tensors[name].widths)
    for name in whole.mirror.tensors_of(Role.WEIGHT):
        a, b = (result.mirror.value_parameter(name) for result in (whole, apart))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(a.detach().abs().max()))
    losses = [result.outcome.validation_loss for result in (whole, apart)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_model_whose_samples_depend_on_each_other_has_smaller_batches(monkeypatch) -> None:
    model, data = parse("h = MatMul (x, w)  y = Softmax <axis = 0> (h)"), {"x": samples(64, 8)}
    _limit_to(monkeypatch, 6, model, data)
    notices: list[str] = []
    quantize(
        model,
        data,
        "20%",
        epochs=1,
        batch_size=64,
        progress=lambda e: notices.append(e.message) if isinstance(e, Notice) else None,
    )
    assert "batches have 6 samples, because 64 need much memory" in notices
