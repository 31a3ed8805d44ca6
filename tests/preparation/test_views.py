"""Chains of views become one Reshape, two Transposes become one, useless nodes are removed."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.views import merge_views


def _merged(body: str, signature: str = "float[n,4,6] x") -> list[str]:
    """The operators after merging. Outputs must not change, and a second run changes nothing."""
    text = f"""<ir_version: 10, opset_import: ["": 21]> g ({signature}) => (y)
    <int64[1] first = {{0}}, int64[1] last = {{-1}}, int64[2] flat = {{-1, 24}},
     int64[4] split = {{-1, 2, 2, 6}}, int64[3] back = {{-1, 4, 6}}>
    {{ {body} }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    for index, node in enumerate(model.graph):
        node.name = f"n{index}"
    infer_shapes(model)
    before = ir.to_proto(model)
    merge_views(model)
    once = [node.op_type for node in model.graph if node.op_type != "Constant"]
    infer_shapes(model)
    merge_views(model)
    assert [node.op_type for node in model.graph if node.op_type != "Constant"] == once
    after = ir.to_proto(model)
    onnx.checker.check_model(after)
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    for old, new in zip(
        *(open_session(m).run(None, {"x": x}) for m in (before, after)), strict=True
    ):
        np.testing.assert_array_equal(new, old)
    return once


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Reshape(x, flat) y = Reshape(a, split)", ["Reshape"]),
        ("a = Reshape(x, flat) b = Unsqueeze(a, first) y = Relu(b)", ["Reshape", "Relu"]),
        ("a = Reshape(x, flat) b = Reshape(a, back) y = Relu(b)", ["Relu"]),
        ("a = Abs(x) b = Reshape(a, back) y = Relu(b)", ["Abs", "Relu"]),
        (
            "a = Reshape(x, flat) b = Reshape(a, split) c = ReduceSum(a) y = Add(b, c)",
            ["Reshape", "ReduceSum", "Reshape", "Add"],
        ),
        ("a = Transpose<perm=[1,2,0]>(x) y = Transpose<perm=[1,2,0]>(a)", ["Transpose"]),
        ("a = Transpose(x) b = Transpose(a) y = Relu(b)", ["Relu"]),
        ("a = Relu(x) b = Transpose(a) y = Transpose(b)", ["Relu", "Transpose", "Transpose"]),
        ("a = Transpose(x) y = Reshape(a, flat)", ["Transpose", "Reshape"]),
        ("y = Reshape(x, back)", ["Reshape"]),  # the output keeps its name
        ("a = Transpose(x) y = Transpose(a)", ["Transpose", "Transpose"]),
    ],
)
def test_chains_of_views_are_merged(body: str, left: list[str]) -> None:
    assert sorted(_merged(body)) == sorted(left)


def test_views_with_two_open_sizes_are_not_merged() -> None:
    body = "a = Unsqueeze(x, first) y = Unsqueeze(a, first)"
    assert _merged(body, "float[n,m,6] x") == ["Unsqueeze", "Unsqueeze"]
