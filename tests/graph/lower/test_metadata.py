"""The plan inside a file: what goes in comes out, short or packed."""

from __future__ import annotations

import numpy as np
import pytest
from plans import make_plan
from toys import convnet

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.gating.insert import insert_gates
from onnx_cgmq.graph.lower import metadata
from onnx_cgmq.graph.lower.metadata import PLAN_KEY, embedded_tensors
from onnx_cgmq.graph.lower.write import write_back


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("above", [0, 1 << 20])
def test_what_is_embedded_is_read_back(granularity, above, monkeypatch) -> None:
    monkeypatch.setattr(metadata, "_PACK_ABOVE", above)
    gated = insert_gates(convnet(), granularity=granularity, activation_granularity="tensor")
    plan = make_plan(gated)
    model = write_back(gated, plan)
    assert model.metadata_props[PLAN_KEY].startswith("{") == (above > 0)
    found = embedded_tensors(model)
    assert list(found) == list(plan.tensors)
    for name, tensor in plan.tensors.items():
        assert found[name]["high"].dtype == np.float32
        np.testing.assert_array_equal(found[name]["high"], tensor.high)
        np.testing.assert_array_equal(found[name]["widths"], tensor.widths)


def test_a_damaged_packed_plan_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(metadata, "_PACK_ABOVE", 0)
    gated = insert_gates(convnet())
    model = write_back(gated, make_plan(gated))
    model.metadata_props[PLAN_KEY] = model.metadata_props[PLAN_KEY][:-20]
    with pytest.raises(ModelError, match="damaged"):
        embedded_tensors(model)
