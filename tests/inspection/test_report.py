from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from onnx_cgmq.contract.identifiers import PLAN_KEY
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import make_plan


def mlp() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(4, 6)), "b": rng.normal(size=6), "v": rng.normal(size=(6, 2))}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="fc0"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "v"], ["y"], name="fc1"),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()],
        value_info=[helper.make_tensor_value_info("r", TensorProto.FLOAT, ["n", 6])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def written(widths, **config) -> ir.Model:
    gated = insert_gates(mlp(), **config, target="generic")
    specs = {name: spec for name, (_, spec) in quantizer_nodes(gated).items()}
    full = {name: np.full(spec.gate_shape, widths[name]) for name, spec in specs.items()}
    return write_back(gated, make_plan(gated, full))


WIDTHS = {"x": 8, "w": 4, "b": 8, "r": 2, "v": 8}


def test_report_of_a_float_model_has_32_bits() -> None:
    report = inspect(mlp())
    assert report.rbop == 1
    assert report.macs == 4 * 6 + 6 * 2
    assert report.weight_bytes == 4 * (24 + 6 + 12)


def test_report_of_a_written_model() -> None:
    report = inspect(written(WIDTHS))
    assert {name: tensor.counts for name, tensor in report.tensors.items()} == {
        "x": {8: 1},
        "w": {4: 24},
        "b": {8: 6},
        "r": {2: 1},
        "v": {8: 12},
    }
    assert report.tensors["w"].stored == "INT4"
    assert report.tensors["w"].stored_bytes == 12
    assert [node.bops for node in report.nodes] == [24 * 32, 12 * 16]
    assert report.weight_bytes == 12 + 24 + 12


def test_report_has_ranges_and_shares_of_tensors() -> None:
    tensors = inspect(written(WIDTHS)).tensors
    low, high = tensors["w"].range
    assert low == -high < 0
    assert tensors["r"].range[0] == 0
    total = 24 * 32 + 12 * 16
    assert tensors["x"].share == tensors["w"].share == 24 * 32 / total
    assert tensors["r"].share == 12 * 16 / total
    assert tensors["b"].share == 0
    assert inspect(mlp()).tensors["w"].range is None


def test_shapes_that_the_file_lacks_are_inferred() -> None:
    model = written(WIDTHS)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    assert inspect(model).bops == inspect(written(WIDTHS)).bops


def test_without_metadata_the_codes_alone_decide() -> None:
    model = written(WIDTHS)
    del model.metadata_props[PLAN_KEY]
    assert inspect(model).bops == 24 * 32 + 12 * 16


def test_a_claim_that_the_codes_exceed_is_not_believed() -> None:
    model = written(WIDTHS)
    model.metadata_props[PLAN_KEY] = model.metadata_props[PLAN_KEY].replace(
        '"widths":4', '"widths":2'
    )
    assert inspect(model).tensors["w"].counts == {4: 24}


def test_float_weights_that_claim_a_grid_must_lie_on_it() -> None:
    widths = {**WIDTHS, "w": np.array([[32, 2, 2, 2, 2, 2]])}
    gated = insert_gates(
        mlp(), granularity="channel", activation_granularity="tensor", target="generic"
    )
    specs = {name: spec for name, (_, spec) in quantizer_nodes(gated).items()}
    full = {n: np.broadcast_to(widths[n], s.gate_shape).copy() for n, s in specs.items()}
    model = write_back(gated, make_plan(gated, full), compact=False)
    assert inspect(model).tensors["w"].counts == {2: 20, 32: 4}
    value = model.graph.initializers["w.values"]
    value.const_value = ir.tensor(value.const_value.numpy() + np.float32(1e-3), name="w.values")
    assert inspect(model).tensors["w"].counts == {32: 24}


def test_a_damaged_embedded_plan_is_an_error() -> None:
    model = written(WIDTHS)
    model.metadata_props[PLAN_KEY] = "{"
    with pytest.raises(ModelError, match="damaged"):
        inspect(model)
    model.metadata_props[PLAN_KEY] = '{"version": 99, "tensors": {}}'
    with pytest.raises(ModelError, match="version 99"):
        inspect(model)


def test_gated_models_and_models_without_macs_are_refused() -> None:
    with pytest.raises(ModelError, match="still has gates"):
        inspect(insert_gates(mlp(), target="generic"))
    relu = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    with pytest.raises(ModelError, match="no MAC operators"):
        inspect(helper.make_model(relu, ir_version=10))


def test_report_as_json_and_as_table() -> None:
    report = inspect(written(WIDTHS))
    fields = json.loads(report.to_json())
    assert fields["bops"] == report.bops
    assert fields["tensors"][0]["widths"] == {"8": 1}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table())
    text = console.export_text()
    assert "fc0" in text
    assert "INT4" in text
    assert f"±{report.tensors['w'].range[1]:.3g}" in text
    assert f"0 to {report.tensors['r'].range[1]:.3g}" in text
    assert "80.0%" in text  # of the bit operations


def test_report_counts_macs_by_pair_of_widths():
    report = inspect(written(WIDTHS))
    assert report.pairs == {(4, 8): 24, (8, 2): 12}
    assert json.loads(report.to_json())["pairs"] == {"4x8": 24, "8x2": 12}
    assert report.peak_activation_bytes is None
