from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.pair_room import leave_room_for_pairs
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import GRANULARITIES, LAYERS, gated, mixed, network, run, samples
from tests.support.plans import draw_widths, make_plan, set_initializer, set_widths


def check_file(written: ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(written)
    onnx.checker.check_model(proto, full_check=True)
    assert not proto.functions
    assert [opset.domain for opset in proto.opset_import] == [""]
    assert not any(is_gated_quantizer(node) for node in written.graph)
    return proto


def check_optimized(found: np.ndarray, expected: np.ndarray) -> None:
    """Integer kernels add in another order, so that one value may round to the next code.

    That changes the outputs of one sample; those of all others must be equal.
    """
    close = np.abs(found - expected) <= 2e-5 * max(np.abs(expected).max(), 1e-3)
    assert close.all(axis=1).sum() >= len(expected) - 1


@pytest.mark.parametrize(("weights", "activations"), GRANULARITIES)
@pytest.mark.parametrize("widths", [(2, 4, 8), (2, 4, 8, 16, 32)])
def test_written_file_equals_the_gated_model(weights, activations, widths) -> None:
    model, plan = mixed(weights, activations, widths)
    written = write_back(model, plan)
    check_file(written)
    x = samples()
    expected = run(model, x, optimize=False)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(written, x, False), expected, rtol=0, atol=2e-5 * scale)
    check_optimized(run(written, x, True), expected)
    report = inspect(written)
    assert report.bops == plan.cost.bops
    assert {node.name: node.bops for node in report.nodes} == plan.cost.bops_by_node
    assert report.weight_bytes == plan.cost.weight_bytes


def test_onnxruntime_runs_integer_kernels_and_weights_have_their_true_size(tmp_path) -> None:
    model = gated()
    widths = {"x": 8, "w0": 8, "p0": 4, "w1": 2, "f": 2, "v0": 4, "hr": 8, "v1": 2}
    names = quantizer_nodes(model)
    plan = make_plan(model, {name: np.array(widths.get(name, 8)) for name in names})
    written = write_back(model, plan)
    proto = check_file(written)
    run(written, samples(), True, tmp_path / "optimized.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert operators.count("QLinearConv") == 2
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Cast"} & set(operators)
    assert "DequantizeLinear" not in operators
    assert len(proto.SerializeToString()) <= 1.1 * plan.cost.weight_bytes + 20_000


def test_few_activation_codes_differ_with_optimizations() -> None:
    """Kernels round float sums differently, so a few codes differ by one, and none by more."""
    model = gated()
    plan = make_plan(model, {name: np.array(8) for name in quantizer_nodes(model)})
    written = write_back(model, plan, compact=False)
    codes = next(
        v
        for n in written.graph
        for v in n.outputs
        if v.name == "f.clipped" or v.name == "f.source_codes"
    )
    written.graph.outputs.append(codes)
    x = samples()

    def activation_codes(optimize):
        options = ort.SessionOptions()
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        data = ir.to_proto(written).SerializeToString()
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return session.run([codes.name], {"x": x})[0].astype(int)

    difference = np.abs(activation_codes(True) - activation_codes(False))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_codes_that_could_saturate_are_unsigned() -> None:
    """With the largest codes everywhere, kernels that add products in INT16 would be far off."""
    model = gated()
    for name, (node, spec) in quantizer_nodes(model).items():
        if spec.role is Role.WEIGHT and name in ("w0", "v1"):
            set_initializer(node.inputs[0], np.full(spec.shape, 0.5))
            set_initializer(node.inputs[-2], np.full(spec.range_shape, 0.5))
        if spec.role is Role.ACTIVATION:
            set_initializer(node.inputs[-2], np.full(spec.range_shape, 40.0))
    plan = make_plan(model, {name: np.array(8) for name in quantizer_nodes(model)})
    written = write_back(model, plan, compact=False)
    assert written.graph.initializers["w0.codes"].dtype is ir.DataType.UINT8
    x = np.full((4, 3, 9, 9), 39.0, dtype=np.float32)
    expected = run(model, x, False)
    np.testing.assert_allclose(run(written, x, True), expected, rtol=1e-3)


@pytest.mark.parametrize("widths", [{"w0": 32}, {"w1": 16}, {"p0": 16}, {"v0": 32}, {"v1": 16}])
def test_onnxruntime_does_not_quantize_what_the_plan_keeps_wide(widths) -> None:
    """onnxruntime's optimizer may quantize a float weight that meets an 8-bit activation."""
    model = gated()
    names = quantizer_nodes(model)
    plan = make_plan(model, {name: np.array(widths.get(name, 8)) for name in names})
    written = write_back(model, plan)
    x = samples()
    check_optimized(run(written, x, True), run(written, x, False))
    assert inspect(written).bops == plan.cost.bops


@pytest.mark.parametrize("width", [2, 4, 8])
def test_symmetric_activations_are_unsigned_codes(width) -> None:
    """Gated models made for QONNX have no zero points; in UINT8 the zero point is 128."""
    model = gated(form="qonnx")
    names = quantizer_nodes(model)
    assert names["x"][1].form.is_symmetric
    plan = make_plan(model, {name: np.array(width if name == "x" else 8) for name in names})
    written = write_back(model, plan, compact=False)
    zero_point = written.graph.initializers["x.zero_point"].const_value.numpy()
    assert (zero_point.dtype, int(zero_point)) == (np.uint8, 128)
    x = samples()
    expected = run(model, x, False)
    for optimize in (False, True):
        np.testing.assert_allclose(run(written, x, optimize), expected, rtol=0, atol=1e-5)
    assert inspect(written).bops == plan.cost.bops


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_graphs_and_plans_written_equal_the_gated_model(data) -> None:
    layer = st.tuples(
        st.sampled_from([4, 6]),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(0, 1),
        st.sampled_from([1, 2]),
        st.booleans(),
    )
    layers = data.draw(st.lists(layer, min_size=1, max_size=2))
    layers[0] = (*layers[0][:4], 1, layers[0][5])  # three input channels do not split
    granularity = data.draw(st.sampled_from(["tensor", "channel", "element"]))
    activations = data.draw(st.sampled_from(["tensor", granularity]))
    seed = data.draw(st.integers(0, 10_000))
    prune = granularity != "tensor" and data.draw(st.booleans())
    model = gated(
        layers, seed, granularity=granularity, activation_granularity=activations, prune=prune
    )
    plan = make_plan(model, draw_widths(model, np.random.default_rng(seed)))
    written = write_back(model, plan, compact=False)
    check_file(written)
    x = samples(seed, 4)
    expected = run(model, x, False)
    scale = max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(run(written, x, False), expected, rtol=0, atol=2e-5 * scale)
    check_optimized(run(written, x, True), expected)
    assert inspect(written).bops == plan.cost.bops


def test_gated_model_is_not_changed() -> None:
    model = gated()
    plan = make_plan(model)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    write_back(model, plan)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_values_of_the_plan_win_over_those_of_the_model() -> None:
    model = gated()
    set_widths(model, {name: np.array(32) for name in quantizer_nodes(model)})
    plan = make_plan(model)
    tensors = dict(plan.tensors)
    tensors["v1"] = tensors["v1"].model_copy(update={"values": np.zeros((8, 5), np.float32)})
    written = write_back(model, plan.model_copy(update={"tensors": tensors}))
    assert not run(written, samples(), False).any()


def test_plan_of_another_model_is_refused() -> None:
    model = gated()
    plan = make_plan(model)
    tensors = {name: tensor for name, tensor in plan.tensors.items() if name != "w0"}
    with pytest.raises(ModelError, match="lacks \\['w0'\\]"):
        write_back(model, plan.model_copy(update={"tensors": tensors}))
    with pytest.raises(ModelError, match="no gates"):
        write_back(network(np.random.default_rng(0), LAYERS), plan)
    with pytest.raises(ModelError, match="element widths"):
        write_back(gated(granularity="element"), plan)


def test_metadata_of_the_model_stays_and_that_of_nodes_does_not():
    model = network(np.random.default_rng(0), LAYERS)
    for node in model.graph.node:
        node.doc_string = "a stack trace"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="x" * 1000)
    model.metadata_props.add(key="names", value="digits")
    with_gates = insert_gates(model)
    written = write_back(with_gates, make_plan(with_gates))
    assert written.metadata_props["names"] == "digits"
    assert not any(node.metadata_props or node.doc_string for node in written.graph)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["tensor", "channel", "element"])
@pytest.mark.parametrize("weight_ranges", ["tensor", "channel"])
def test_exact_steps_give_the_same_bits_in_every_kernel(granularity, weight_ranges) -> None:
    """Compares float kernels (no optimizations), integer kernels (optimized) and the mirror."""
    model = gated(
        granularity=granularity,
        activation_granularity="tensor",
        weight_ranges=weight_ranges,
        widths=(2, 4, 8),
        exact_steps=True,
    )
    mirror = Mirror(model)
    x = samples()
    mirror({"x": torch.from_numpy(x)})
    rng = np.random.default_rng(3)
    for quantizer in mirror.quantizers.values():
        if quantizer.spec.role is Role.WEIGHT:
            quantizer.fit(mirror.value_parameter(quantizer.spec.tensor))
        choice = (8,) if quantizer.spec.role is Role.ACTIVATION else (2, 4, 8)
        widths = rng.choice(choice, quantizer.spec.gate_shape)
        quantizer.set_gate(quantizer.gate_for(widths))
    leave_room_for_pairs(mirror)
    plan = mirror.plan()
    written = write_back(mirror.to_model(), plan, compact=False)
    check_file(written)
    with torch.no_grad():
        expected = mirror({"x": torch.from_numpy(x)})["y"].numpy()
    np.testing.assert_array_equal(run(written, x, False), expected)
    np.testing.assert_array_equal(run(mirror.to_model(), x, False), expected)
    np.testing.assert_allclose(run(written, x, True), expected, rtol=1e-6, atol=1e-6)
    codes = [value for name, value in written.graph.initializers.items() if name.endswith(".codes")]
    unsigned = any(value.dtype is ir.DataType.UINT8 for value in codes)
    assert codes
    assert not unsigned or granularity == "element"  # nested grids have no room
