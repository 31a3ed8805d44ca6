from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from onnx_cgmq.bits import GridForm
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.gated_qdq import GATED_DOMAIN
from onnx_cgmq.graph.gates import quantizer_nodes, set_form
from onnx_cgmq.graph.insert import insert_gates


def gated_dense(**settings) -> ir.Model:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w1", (4, 4)), ("w2", (4, 3)))
    ]
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
                helper.make_node("MatMul", ["h", "w2"], ["y"], name="second"),
            ],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    return insert_gates(model, **settings)


def run(model: ir.Model, x):
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})[0]


@pytest.mark.parametrize("granularity", ["tensor", "channel", "element"])
def test_form_there_and_back(granularity):
    gated = gated_dense(granularity=granularity)
    x = np.random.default_rng(1).random((2, 4), np.float32)
    before = run(gated, x)
    set_form(gated, "x", GridForm.UNSIGNED)
    node, spec = quantizer_nodes(gated)["x"]
    assert spec.form is GridForm.UNSIGNED
    assert node.op_type.startswith("GatedQDQ_unsigned_")
    assert [v.name for v in node.inputs] == ["x", "x.high", "x.gate"]
    assert "x.low" not in gated.graph.initializers
    np.testing.assert_array_equal(run(gated, x), before)
    set_form(gated, "x", GridForm.AFFINE)
    assert [v.name for v in node.inputs] == ["x", "x.low", "x.high", "x.gate"]
    np.testing.assert_array_equal(run(gated, x), before)


def test_functions_are_those_that_are_called():
    gated = gated_dense()
    for tensor in ("x", "h"):
        set_form(gated, tensor, GridForm.UNSIGNED)
        used = {node.op_type for node in gated.graph if node.domain == GATED_DOMAIN}
        assert {name for _, name, _ in gated.functions} == used


def test_same_form_changes_nothing():
    gated = gated_dense()
    set_form(gated, "x", GridForm.AFFINE)
    node, _ = quantizer_nodes(gated)["x"]
    assert [v.name for v in node.inputs] == ["x", "x.low", "x.high", "x.gate"]
    assert (GATED_DOMAIN, node.op_type, "") in gated.functions


def test_unknown_tensor():
    with pytest.raises(ModelError, match=r"'nope' has no quantizer; there are: x, w1"):
        set_form(gated_dense(), "nope", GridForm.UNSIGNED)
