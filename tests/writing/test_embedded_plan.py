"""The plan inside a file: what goes in comes out, short or packed."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.identifiers import PLAN_KEY
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.writing import embedded_plan
from onnx_cgmq.writing.embedded_plan import embedded_tensors
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import draw_widths, make_plan
from tests.support.toys import convnet


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("above", [0, 1 << 20])
def test_what_is_embedded_is_read_back(granularity, above, monkeypatch) -> None:
    monkeypatch.setattr(embedded_plan, "_PACK_ABOVE", above)
    gated = insert_gates(convnet(), granularity=granularity, activation_granularity="tensor")
    plan = make_plan(gated)
    model = write_back(gated, plan)
    assert model.metadata_props[PLAN_KEY].startswith("{") == (above > 0)
    found = embedded_tensors(model)
    assert list(found) == list(plan.tensors)
    for name, tensor in plan.tensors.items():
        if tensor.role is not Role.BIAS and not tensor.is_float:
            ends = [tensor.low.min(), tensor.high.max()]
            np.testing.assert_allclose(found[name]["range"], ends, rtol=1e-3)
        assert found[name].get("granularity", "tensor") == tensor.granularity.value
        widths = np.broadcast_to(found[name]["widths"], tensor.widths.shape)
        np.testing.assert_array_equal(widths, tensor.widths)


def test_mixed_widths_are_read_back() -> None:
    gated = insert_gates(convnet(), granularity="channel", activation_granularity="tensor")
    plan = make_plan(gated, draw_widths(gated, np.random.default_rng(0), 32))
    found = embedded_tensors(write_back(gated, plan))
    weights = [tensor for tensor in plan.tensors.values() if tensor.role is Role.WEIGHT]
    assert any(len(np.unique(tensor.widths)) > 1 for tensor in weights)
    for tensor in weights:
        np.testing.assert_array_equal(found[tensor.name]["widths"], tensor.widths)


def test_a_damaged_packed_plan_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(embedded_plan, "_PACK_ABOVE", 0)
    gated = insert_gates(convnet())
    model = write_back(gated, make_plan(gated))
    model.metadata_props[PLAN_KEY] = model.metadata_props[PLAN_KEY][:-20]
    with pytest.raises(ModelError, match="damaged"):
        embedded_tensors(model)
