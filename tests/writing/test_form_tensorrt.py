"""The form for TensorRT keeps its rules, and computes what the gated graph computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from onnx_cgmq.contract.bits import GridForm, Role
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import gated, run, samples
from tests.support.plans import make_plan
from tests.support.referee import parse

TARGET = {"target": "tensorrt"}


def residual() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    body = (
        "h = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(h) g = Conv<pads=[1,1,1,1]>(r, v) "
        "s = Add(g, r) y = Conv<pads=[1,1,1,1]>(s, w)"
    )
    model = parse("float[n,3,6,6] x", "float[n,3,6,6] y", body)
    for name, shape in (("w", (3, 3, 3, 3)), ("v", (3, 3, 3, 3)), ("b", (3,))):
        array = rng.normal(0, 0.4, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def eight_bits(gates: ir.Model):
    quantizers = quantizer_nodes(gates)
    biases = {name for name, (_, spec) in quantizers.items() if spec.role is Role.BIAS}
    return make_plan(gates, {n: np.array(32 if n in biases else 8) for n in quantizers})


def test_every_quantizer_keeps_the_rules() -> None:
    gates = insert_gates(residual(), **TARGET)
    plan = eight_bits(gates)
    assert {tensor.form for tensor in plan.tensors.values()} == {GridForm.SYMMETRIC}
    proto = ir.to_proto(write_back(gates, plan, form="tensorrt"))
    onnx.checker.check_model(proto, full_check=True)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    made = {name: node for node in proto.graph.node for name in node.output}
    quantizers = [
        n for n in proto.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert len(quantizers) == 2 * 4 + 2
    for node in quantizers:
        zero = onnx.numpy_helper.to_array(stored[node.input[2]])
        assert stored[node.input[2]].data_type == TensorProto.INT8
        assert not zero.any()
        channels = stored[node.input[1]].dims
        assert list(channels) == ([3] if node.input[0] in stored else [])
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Add"):
            operands = [made[name].op_type for name in node.input[:2]]
            assert operands == ["DequantizeLinear"] * 2
        if node.op_type == "Conv" and len(node.input) > 2:
            assert stored[node.input[2]].data_type == TensorProto.FLOAT


@pytest.mark.parametrize("model", [residual, None])
def test_it_computes_what_the_gated_graph_computes(model) -> None:
    gates = gated(**TARGET) if model is None else insert_gates(model(), **TARGET)
    x = samples() if model is None else np.random.default_rng(1).normal(0, 2, (8, 3, 6, 6))
    plan = eight_bits(gates)
    written = write_back(gates, plan, form="tensorrt")
    x = x.astype(np.float32)
    expected = run(gates, x, optimize=False)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(written, x, optimize=False), expected, atol=2e-5 * scale)
    report = inspect(written)
    assert report.bops == plan.cost.bops
    assert report.weight_bytes == plan.cost.weight_bytes


def test_float_tensors_stay_float() -> None:
    gates = insert_gates(residual(), **TARGET, keep_float=("v",))
    proto = ir.to_proto(write_back(gates, make_plan(gates), form="tensorrt"))
    float_weights = [
        tensor
        for tensor in proto.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 4
    ]
    assert len(float_weights) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "onnxruntime", "widths": (4,)}, "4 bits, but the form 'tensorrt' has 8 and 32"),
        ({"target": "onnxruntime", "widths": (8,)}, "has a zero point, unsigned codes"),
    ],
)
def test_a_plan_for_another_form_is_refused(settings, message) -> None:
    gates = insert_gates(residual(), **settings)
    with pytest.raises(ConfigError, match=message):
        write_back(gates, make_plan(gates), form="tensorrt")
