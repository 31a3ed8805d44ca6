"""An embedded plan is read back as it was written, compressed or not."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.identifiers import PLAN_KEY
from onnx_cgmq.contract.plan import PLAN_VERSION
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.graph.files import limits
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.writing import embedded_plan
from onnx_cgmq.writing.embedded_plan import embedded_tensors
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import draw_widths, make_plan
from tests.support.toys import convnet, mlp


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("above", [0, 1 << 20])
def test_an_embedded_plan_is_read_back(granularity, above, monkeypatch) -> None:
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


@pytest.mark.parametrize("above", [0, 1 << 20])
def test_the_reader_in_the_docs_reads_it_too(above, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(embedded_plan, "_PACK_ABOVE", above)
    page = Path(__file__).parents[2] / "docs" / "inspect.md"
    (reader,) = re.findall(r"```python\n(import base64.*?)```", page.read_text("utf-8"), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(reader, scope)
    gated = insert_gates(convnet())
    plan = make_plan(gated)
    model = write_back(gated, plan, short_names=True)
    save_model(model, tmp_path / "out.onnx")
    fields = scope["embedded_plan"](tmp_path / "out.onnx")
    assert fields["version"] == PLAN_VERSION
    assert list(fields["tensors"]) == list(plan.tensors)
    values = {str(value.name) for node in model.graph for value in node.outputs}
    called = [entry["as"] for entry in fields["tensors"].values() if "as" in entry]
    assert called
    assert set(called) <= values
    known = {"ladder", "range", "granularity", "axis", "widths", "grid_width", "step", "as"}
    assert {field for entry in fields["tensors"].values() for field in entry} <= known


def test_mixed_widths_are_read_back() -> None:
    gated = insert_gates(convnet(), granularity="channel", activation_granularity="tensor")
    plan = make_plan(gated, draw_widths(gated, np.random.default_rng(0), 32))
    found = embedded_tensors(write_back(gated, plan))
    weights = [tensor for tensor in plan.tensors.values() if tensor.role is Role.WEIGHT]
    assert any(len(np.unique(tensor.widths)) > 1 for tensor in weights)
    for tensor in weights:
        np.testing.assert_array_equal(found[tensor.name]["widths"], tensor.widths)


def with_plan(text: str) -> ir.Model:
    model = ir.from_proto(mlp())
    model.metadata_props[PLAN_KEY] = text
    return model


def entry(**fields: object) -> str:
    tensors = {"w1": fields}
    plan = {"version": PLAN_VERSION, "bound": "1%", "ladder": [2, 4, 8], "names": {}}
    return json.dumps({**plan, "tensors": tensors})


@pytest.mark.parametrize(
    "text",
    [
        entry(widths=300),
        entry(widths=-1),
        entry(widths=3),
        entry(widths=[[2], "2z"]),
        entry(widths=[[3], "22"]),
        entry(granularity="foo"),
        entry(granularity="channel", axis=[1]),
        entry(granularity="channel", axis=1.5),
        entry(grid_width="8"),
        entry(ladder=None),
        entry(ladder=3),
        entry(ladder=[8, 4]),
        entry(range=None),
        entry(range=[1]),
        entry(range=[0, float("inf")]),
        entry(step="wide"),
        entry(step=[1, [2]]),
        entry(step=float("nan")),
        entry().replace("[2, 4, 8]", "{}"),
        entry().replace('"w1": {}', '"w1": []'),
        entry().replace('"tensors"', '"tensor"'),
        entry(range=[0, 1]).replace("[0, 1]", "[0, 1" + 400 * "0" + "]"),
        "[" * 200_000,
        "null",
        "zlib_base85:" + "0" * 21,
    ],
)
def test_a_damaged_plan_is_an_error_that_names_it(text) -> None:
    with pytest.raises(ModelError, match=rf"metadata is damaged: .* remove '{PLAN_KEY}'"):
        embedded_tensors(with_plan(text))


def test_a_plan_unpacks_to_a_few_times_the_file_at_most(monkeypatch) -> None:
    packed = zlib.compress(entry().encode() + b" " * (1 << 20), 9)
    model = with_plan("zlib_base85:" + base64.b85encode(packed).decode())
    assert list(embedded_tensors(model)) == ["w1"]
    monkeypatch.setattr(limits, "_METADATA", 1 << 19)
    with pytest.raises(ModelError, match="unpacks to more than"):
        embedded_tensors(model)
    weight = ir.tensor(np.zeros(1 << 15, np.float32), name="more")
    model.graph.register_initializer(ir.Value(name="more", const_value=weight))
    assert list(embedded_tensors(model)) == ["w1"]


def test_a_damaged_packed_plan_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(embedded_plan, "_PACK_ABOVE", 0)
    gated = insert_gates(convnet())
    model = write_back(gated, make_plan(gated))
    model.metadata_props[PLAN_KEY] = model.metadata_props[PLAN_KEY][:-20]
    with pytest.raises(ModelError, match="damaged"):
        embedded_tensors(model)
