"""Errors of tensors against a computation by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.learn.tensor_errors import tensor_errors
from tests.support.toys import gated_mirror, mlp


@pytest.fixture
def mirror_and_data():
    _, mirror, data = gated_mirror(mlp())
    for quantizer in mirror.quantizers.values():
        if quantizer.spec.role is not Role.BIAS:
            quantizer.set_gate(quantizer.gate_for(np.full(quantizer.spec.gate_shape, 4)))
    return mirror, data


def relative(found: torch.Tensor, meant: torch.Tensor) -> float:
    return float((found - meant).detach().norm() / meant.detach().norm())


def test_errors_are_those_of_the_values(mirror_and_data) -> None:
    mirror, data = mirror_and_data
    errors = tensor_errors(mirror, data, most_samples=len(data))
    x = {"x": torch.from_numpy(np.concatenate([b.inputs["x"] for b in data.batches(8)]))}
    with torch.no_grad(), mirror.unquantized():
        floats = mirror.run(x, ["x", "r", "w1"])
    with torch.no_grad():
        hidden = mirror.run(x, ["r"])["r"]
        given = {name: mirror.quantizers[name](value)[0] for name, value in floats.items()}
        given["r"] = mirror.quantizers["r"](hidden)[0]
    assert errors["x"].own == pytest.approx(relative(given["x"], floats["x"]), rel=1e-4)
    assert errors["w1"].own == pytest.approx(relative(given["w1"], floats["w1"]), rel=1e-4)
    assert errors["r"].own == pytest.approx(relative(given["r"], hidden), rel=1e-4)
    assert errors["r"].from_float == pytest.approx(relative(given["r"], floats["r"]), rel=1e-4)
    assert errors["r"].from_float > errors["r"].own > 0


def test_a_weight_is_compared_with_the_float_model(mirror_and_data) -> None:
    mirror, data = mirror_and_data
    with torch.no_grad():
        mirror.value_parameter("w1").mul_(2)
    error = tensor_errors(mirror, data)["w1"]
    assert error.own > 0.4
    assert error.counts.sum() == 8 * 12
    assert error.edges[-1] == pytest.approx(float(mirror.value_parameter("w1").detach().max()) / 2)


def test_the_mirror_is_not_changed(mirror_and_data) -> None:
    mirror, data = mirror_and_data
    before = {name: value.clone() for name, value in mirror.state_dict().items()}
    tensor_errors(mirror, data)
    assert all(torch.equal(before[name], value) for name, value in mirror.state_dict().items())
    assert not any(q._forward_hooks or q.bypassed for q in mirror.quantizers.values())
