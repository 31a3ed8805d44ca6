from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import GRANULARITIES, gated, mixed, network, run, samples
from tests.support.plans import draw_widths, make_plan
from tests.support.quant import run_reference

OLD = 21  # an opset without 2-bit types


def plan_of(model: ir.Model, **widths: int):
    names = quantizer_nodes(model)
    return make_plan(model, {name: np.array(widths.get(name, 8)) for name in names})


def quantizer(written: ir.Model, name: str) -> ir.Node:
    (node,) = (node for node in written.graph if node.outputs[0].name == f"{name}.quantized")
    return node


@pytest.mark.parametrize(("weights", "activations"), GRANULARITIES)
@pytest.mark.parametrize(("widths", "form"), [((2, 4, 8), "qonnx"), ((2, 4, 8, 16, 32), "ort")])
def test_outputs_and_cost_equal_those_of_the_gated_model(
    weights, activations, widths, form
) -> None:
    model, plan = mixed(weights, activations, widths, form)
    written = write_back(model, plan, form="native")
    proto = ir.to_proto(written)
    onnx.checker.check_model(proto, full_check=True)
    assert not proto.functions
    assert not any(is_gated_quantizer(node) for node in written.graph)
    x = samples()
    expected = run(model, x, False)
    atol = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(run(written, x, False), expected, rtol=0, atol=atol)
    reference = run_reference(proto, {"x": x[:2]})
    np.testing.assert_allclose(reference, expected[:2], rtol=0, atol=20 * atol)
    report = inspect(written)
    assert report.bops == plan.cost.bops
    assert report.weight_bytes == plan.cost.weight_bytes


def test_tensors_have_the_types_of_their_widths() -> None:
    model = gated()
    widths = {"x": 8, "w0": 4, "p0": 2, "w1": 2, "f": 4, "v0": 8, "hr": 16, "v1": 32}
    written = write_back(model, plan_of(model, **widths), form="native", compact=False)
    types = {name: quantizer(written, name).inputs[0].dtype.name for name in widths if name != "v1"}
    assert types == {
        "x": "UINT8",
        "w0": "INT4",
        "p0": "UINT2",
        "w1": "INT2",
        "f": "UINT4",
        "v0": "INT8",
        "hr": "UINT16",
    }
    assert written.graph.initializers["b0.codes"].dtype is ir.DataType.INT32
    assert written.graph.initializers["v1.values"].dtype is ir.DataType.FLOAT
    codes = ir.to_proto(written.graph.initializers["w1.codes"].const_value)
    assert len(codes.raw_data) == -(-codes.dims[0] * codes.dims[1] * 9 // 4)
    assert (written.graph.opset_imports[""], written.ir_version) == (25, 13)


@pytest.mark.parametrize(("width", "opset"), [(8, OLD), (4, OLD), (2, 25)])
def test_opset_is_raised_to_what_the_types_need(width, opset, monkeypatch) -> None:
    monkeypatch.setattr("onnx_cgmq.preparation.opset.newest_opset", lambda: OLD)
    model = gated()
    assert model.graph.opset_imports[""] == OLD
    written = write_back(model, plan_of(model, w1=width), form="native", compact=False)
    assert written.graph.opset_imports[""] == opset
    onnx.checker.check_model(ir.to_proto(written), full_check=True)
    x = samples()
    np.testing.assert_allclose(run(written, x, False), run(model, x, False), rtol=0, atol=1e-6)


def test_activation_with_one_width_and_a_range_for_each_channel() -> None:
    model = gated(granularity="channel")
    quantizers = quantizer_nodes(model).items()
    plan = make_plan(model, {name: np.full(spec.gate_shape, 4) for name, (_, spec) in quantizers})
    written = write_back(model, plan, form="native", compact=False)
    for name in ("x", "p0"):
        node = quantizer(written, name)
        assert node.attributes["axis"].value == 1
        assert node.inputs[0].dtype is ir.DataType.UINT4
        assert node.inputs[1].const_value.shape == node.inputs[2].const_value.shape
    x = samples()
    np.testing.assert_allclose(run(written, x, False), run(model, x, False), rtol=0, atol=1e-6)


def test_activation_whose_channels_differ_in_width_is_written_in_float_nodes() -> None:
    model = gated(granularity="channel")
    widths = {n: np.full(s.gate_shape, 4) for n, (_, s) in quantizer_nodes(model).items()}
    widths["p0"].reshape(-1)[0] = 2
    written = write_back(model, make_plan(model, widths), form="native", compact=False)
    assert quantizer(written, "p0").op_type == "Mul"
    assert quantizer(written, "x").op_type == "DequantizeLinear"


@pytest.mark.slow
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    granularity=st.sampled_from(["tensor", "channel", "element"]),
    activations=st.sampled_from(["tensor", "channel"]),
    ranges=st.sampled_from(["tensor", "channel"]),
    exact=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_random_plans_written_equal_the_gated_model(
    granularity, activations, ranges, exact, seed
) -> None:
    layers = [(6, 3, 2, 1, 1, False), (4, 2, 1, 0, 2, True)]
    model = insert_gates(
        network(np.random.default_rng(seed), layers),
        granularity=granularity,
        activation_granularity=activations,
        weight_ranges=ranges,
        exact_steps=exact,
        target="generic",
    )
    plan = make_plan(model, draw_widths(model, np.random.default_rng(seed)))
    written = write_back(model, plan, form="native")
    x = samples(seed, 4)
    expected = run(model, x, False)
    atol = 1e-6 * max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(run(written, x, False), expected, rtol=0, atol=atol)
    assert inspect(written).bops == plan.cost.bops
