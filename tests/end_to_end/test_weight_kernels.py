"""Whole runs for weights alone: the bound is kept, and onnxruntime multiplies packed weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_cgmq.api import finish
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import Notice
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.inspection import inspect
from tests.support.toys import CLASSES, make_model, toy_data

pytestmark = pytest.mark.slow


def network() -> onnx.ModelProto:
    """Gemm in both layouts, on 32 and 48 features."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (32, 48), "b1": 48, "w2": (32, 48), "b2": 32, "w3": (32, CLASSES)}
    weights = {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["i"], name="second", transB=1),
        helper.make_node("Tanh", ["i"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "w3"], ["y"], name="last"),
    ]
    return make_model(nodes, weights, [32])


@pytest.mark.parametrize("ranges", ["channel", "block"])
def test_a_bound_on_the_size_is_kept_with_packed_weights(ranges, tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "GOOD_AGREEMENT_DB", 1e3)  # as if rounding did much
    model = network()
    settings = {"weight_ranges": ranges, "block_size": 16, "effort": "fast"}
    data, output = toy_data(model, 64), tmp_path / "w.onnx"
    result = quantize(
        model, data, "size:30%", target="ort-weights", output=output, widths=(4, 8), **settings
    )
    report = inspect(output, kernels=True)
    assert [node.kernel for node in report.nodes] == [Kernel.PACKED] * 3
    assert report.weight_bytes == result.plan.cost.weight_bytes
    assert report.weight_bytes <= 0.3 * inspect(model).weight_bytes
    assert result.plan.tensors["w1"].block == (16 if ranges == "block" else None)
    assert result.check.mirror_db > 25
    notes = [event.message for event in result.events if isinstance(event, Notice)]
    assert sum("MatMulNBits" in note for note in notes) == 1
