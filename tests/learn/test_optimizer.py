"""Which tensors learn, and how fast."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import helper

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn.optimizer import Optimizer, default_learning_rate
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.settings.config import Config
from tests.support.toys import make_model


def _mirror() -> Mirror:
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"], name="mul"),
        helper.make_node("MatMul", ["s", "w"], ["y"], name="matmul"),
    ]
    weights = {"scale": np.full(8, 2.0), "w": np.random.default_rng(0).normal(size=(8, 3))}
    return Mirror(insert_gates(make_model(nodes, weights, [8])))


def test_only_quantized_tensors_and_ranges_learn() -> None:
    mirror = _mirror()
    optimizer = Optimizer(mirror, Config(learning_rate=0.1, range_learning_rate=0.2))
    learning = {id(p) for group in optimizer.adam.param_groups for p in group["params"]}
    ranges = [p for quantizer in mirror.quantizers.values() for p in quantizer.parameters()]
    assert learning == {id(mirror.value_parameters["w"]), *map(id, ranges)}
    assert not mirror.value_parameters["scale"].requires_grad
    assert optimizer.peaks == (0.1, 0.2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_prevents_the_update(value) -> None:
    mirror = _mirror()
    optimizer = Optimizer(mirror, Config())
    weight = mirror.value_parameters["w"]
    before = weight.detach().clone()
    mirror({"x": torch.ones(2, 8)})["y"].sum().backward()
    weight.grad[0, 0] = value
    assert not optimizer.step(1.0)
    assert torch.equal(weight, before)
    optimizer.clear()
    mirror({"x": torch.ones(2, 8)})["y"].sum().backward()
    assert optimizer.step(1.0)
    assert not torch.equal(weight, before)


def test_the_default_learning_rate_falls_with_the_number_of_weights() -> None:
    def rate(weights: int) -> float:
        spec = SimpleNamespace(role=Role.WEIGHT)
        quantizers = {str(index): SimpleNamespace(spec=spec) for index in range(weights)}
        return default_learning_rate(SimpleNamespace(quantizers=quantizers))

    assert rate(1) == rate(4) == 2e-3
    assert rate(20) == pytest.approx(4e-4)
