"""Compact files have the same outputs, kernels and reports, and little more than their codes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import gated, network, run, samples
from tests.support.plans import draw_widths, make_plan


def size(model: ir.Model, folder: Path) -> int:
    save_model(model, folder / "model.onnx")
    return (folder / "model.onnx").stat().st_size


def kernels(model: ir.Model, folder: Path) -> Counter[str]:
    run(model, samples(count=1), True, folder / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_compact_models_are_smaller_with_equal_outputs_kernels_and_reports(
    data, tmp_path_factory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    layer = st.tuples(
        st.sampled_from([4, 16]),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(0, 1),
        st.just(1),
        st.booleans(),
    )
    layers = data.draw(st.lists(layer, min_size=1, max_size=2))
    weights = data.draw(st.sampled_from(["tensor", "channel", "element"]))
    activations = data.draw(st.sampled_from(["tensor", weights]))
    form = data.draw(st.sampled_from(["ort", "ort", "native"]))
    largest = data.draw(st.sampled_from([8, 32]))
    seed = data.draw(st.integers(0, 1000))
    model = gated(layers, seed, granularity=weights, activation_granularity=activations)
    plan = make_plan(model, draw_widths(model, np.random.default_rng(seed), largest))
    small = write_back(model, plan, form=form, short_names=data.draw(st.booleans()))
    full = write_back(model, plan, form=form, compact=False)
    onnx.checker.check_model(ir.to_proto(small), full_check=True)
    x = samples(seed, 3)
    # onnxruntime's optimizations refuse some types of the form `native`.
    for optimize in (False, True) if form == "ort" else (False,):
        np.testing.assert_array_equal(run(small, x, optimize), run(full, x, optimize))
    if form == "ort":
        assert kernels(small, folder) == kernels(full, folder)
    assert inspect(small).to_json() == inspect(full).to_json()
    assert size(small, folder) < size(full, folder)


@pytest.mark.parametrize("widths", [(8,), (2, 4, 8)])
def test_many_narrow_layers_take_little_more_than_their_codes(widths, tmp_path) -> None:
    layers = [(16, 3, 1, 1, 1, False)] * 12
    float_model = network(np.random.default_rng(0), layers, hidden=4)
    onnx.save(float_model, tmp_path / "float.onnx")
    model = insert_gates(float_model, widths=widths)
    plan = make_plan(model, draw_widths(model, np.random.default_rng(1)))
    float_size = (tmp_path / "float.onnx").stat().st_size
    written = write_back(model, plan, short_names=True)
    stored = inspect(written).weight_bytes
    assert size(written, tmp_path) <= 1.05 * stored + 0.05 * float_size
    assert (
        size(write_back(model, plan, compact=False), tmp_path) > 1.05 * stored + 0.05 * float_size
    )


@pytest.mark.parametrize("prefix", ["", "encoder/", "encoder/stages/blocks/layers/" * 5])
def test_names_take_little_of_the_file(prefix, tmp_path) -> None:
    float_model = network(np.random.default_rng(0), [(16, 3, 1, 1, 1, False)] * 12)
    for value in float_model.graph.initializer:
        value.name = prefix + value.name
    for node in float_model.graph.node:
        node.name = prefix + node.name
        node.input[:] = [name if name == "x" else prefix + name for name in node.input]
        node.output[:] = [name if name == "y" else prefix + name for name in node.output]
    model = insert_gates(float_model)
    plan = make_plan(model, draw_widths(model, np.random.default_rng(1)))
    short = size(write_back(model, plan, short_names=True), tmp_path)
    assert short < size(write_back(model, plan), tmp_path) <= short + 5_000


def test_names_of_the_float_model_stay_in_the_file() -> None:
    model = gated()
    float_nodes = [node for node in model.graph if node.domain == ""]
    plan = make_plan(model, {name: np.array(8) for name in quantizer_nodes(model)})
    written = write_back(model, plan)
    nodes = {node.name: node for node in written.graph if node.name}
    assert set(nodes) == {node.name for node in float_nodes if node.name in nodes}
    assert {"conv0", "pool0", "conv1", "fc0", "fc1"} <= set(nodes)
    for node in float_nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert nodes[node.name].outputs[0].name == node.outputs[0].name
    for name, tensor in plan.tensors.items():
        if tensor.role is Role.WEIGHT:
            assert f"{name}.codes" in written.graph.initializers


def test_compact_models_keep_the_names_of_tensors_and_mac_nodes(tmp_path) -> None:
    model = gated()
    plan = make_plan(model, {name: np.array(8) for name in quantizer_nodes(model)})
    written = write_back(model, plan, short_names=True)
    assert [value.name for value in (*written.graph.inputs, *written.graph.outputs)] == ["x", "y"]
    macs = [node.name for node in written.graph if node.name]
    assert macs == ["conv0", "conv1", "fc0", "fc1"]
    save_model(written, tmp_path / "model.onnx")
    report = inspect(tmp_path / "model.onnx")
    assert set(report.tensors) == set(plan.tensors)
    assert [node.name for node in report.nodes] == macs
    assert report.weight_bytes == plan.cost.weight_bytes


def test_equal_files_for_equal_plans(tmp_path) -> None:
    model = gated()
    plan = make_plan(model)
    first, second = (
        ir.to_proto(write_back(model, plan)).SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second
