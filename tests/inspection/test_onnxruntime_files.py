"""Reports on files of onnxruntime's own quantizers, against how the files were made."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.inspection import inspect
from tests.support.toys import convnet, mlp

BITS = {
    QuantType.QInt4: 4,
    QuantType.QUInt4: 4,
    QuantType.QInt8: 8,
    QuantType.QUInt8: 8,
    QuantType.QInt16: 16,
    QuantType.QUInt16: 16,
}


@pytest.fixture(autouse=True)
def _silent():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Reader(CalibrationDataReader):
    def __init__(self, model: onnx.ModelProto) -> None:
        shape = [d.dim_value or 1 for d in model.graph.input[0].type.tensor_type.shape.dim]
        rng = np.random.default_rng(0)
        self.samples = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(2)]

    def get_next(self):
        return self.samples.pop() if self.samples else None


def residual() -> onnx.ModelProto:
    """One tensor read by a Conv, a MatMul of two activations, and an Add."""
    rng = np.random.default_rng(0)
    weights = {"k": rng.normal(size=(3, 3, 1, 1)), "v": rng.normal(size=(4, 4))}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv"),
        helper.make_node("MatMul", ["c", "x"], ["m"], name="both"),
        helper.make_node("Add", ["m", "x"], ["a"], name="add"),
        helper.make_node("MatMul", ["a", "v"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("make", [convnet, mlp, residual], ids=lambda make: make.__name__)
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize(
    ("form", "activation", "weight"),
    [
        (QuantFormat.QOperator, QuantType.QUInt8, QuantType.QInt8),
        (QuantFormat.QOperator, QuantType.QInt8, QuantType.QInt8),
        (QuantFormat.QOperator, QuantType.QUInt8, QuantType.QUInt8),
        (QuantFormat.QDQ, QuantType.QUInt8, QuantType.QInt8),
        (QuantFormat.QDQ, QuantType.QInt8, QuantType.QInt8),
        (QuantFormat.QDQ, QuantType.QUInt16, QuantType.QInt8),
        (QuantFormat.QDQ, QuantType.QInt16, QuantType.QInt16),
        (QuantFormat.QDQ, QuantType.QUInt8, QuantType.QInt4),
        (QuantFormat.QDQ, QuantType.QUInt16, QuantType.QUInt4),
    ],
    ids=lambda value: value.name,
)
def test_reports_on_files_of_quantize_static(
    tmp_path, make, per_channel, form, activation, weight
) -> None:
    model = make()
    quantize_static(
        model,
        tmp_path / "q.onnx",
        Reader(model),
        quant_format=form,
        per_channel=per_channel,
        activation_type=activation,
        weight_type=weight,
    )
    report, expected = inspect(tmp_path / "q.onnx"), inspect(model)
    assert [node.macs for node in report.nodes] == [node.macs for node in expected.nodes]
    for node in report.nodes:
        operands = [report.tensors[name].role.value for name in node.operands]
        assert operands[0] == "activation"
        other = weight if operands[1] == "weight" else activation
        assert node.bops == node.macs * BITS[activation] * BITS[other], node
    assert not report.notes
    weights = [t for t in report.tensors.values() if t.role.value == "weight"]
    sizes = [t for t in expected.tensors.values() if t.role.value == "weight"]
    assert [t.shape for t in weights] == [t.shape for t in sizes]
    for tensor in weights:
        assert tensor.stored_bytes == -(-np.prod(tensor.shape) * BITS[weight] // 8)


@pytest.mark.parametrize("settings", [{"AddQDQPairToWeight": True}, {"DedicatedQDQPair": True}])
def test_reports_on_other_ways_to_write_qdq(tmp_path, settings) -> None:
    """Weights are float behind QuantizeLinear, or every reader has QDQ of its own."""
    model = residual()
    quantize_static(model, tmp_path / "q.onnx", Reader(model), extra_options=settings)
    report = inspect(tmp_path / "q.onnx")
    assert {node.bops / node.macs for node in report.nodes} == {64}
    stored = "FLOAT" if "AddQDQPairToWeight" in settings else "INT8"
    assert report.tensors["k"].stored == stored


@pytest.mark.parametrize("make", [convnet, mlp, residual], ids=lambda make: make.__name__)
def test_reports_on_files_of_quantize_dynamic(tmp_path, make) -> None:
    onnx.save(make(), tmp_path / "m.onnx")
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx", weight_type=QuantType.QUInt8)
    report, expected = inspect(tmp_path / "q.onnx"), inspect(make())
    assert [node.macs for node in report.nodes] == [node.macs for node in expected.nodes]
    # Products of two activations stay float.
    widths = {"both": 1024} if make is residual else {}
    for node in report.nodes:
        assert node.bops == node.macs * widths.get(node.name, 64), node


def test_report_on_a_dynamically_quantized_lstm(tmp_path) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(1, 24, 5)), "r": rng.normal(size=(1, 24, 6))}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="lstm", hidden_size=6)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", "n", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["t", 1, "n", 6])],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    imports = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx")
    report = inspect(tmp_path / "q.onnx", {"x": (7, 1, 5)})
    assert [node.macs for node in report.nodes] == [7 * 24 * 5, 7 * 24 * 6]
    # The state is a value inside the operator, which counts as float.
    assert [node.bops // node.macs for node in report.nodes] == [64, 256]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("accuracy", "width"), [(0, 32), (4, 8)])
def test_report_on_weights_quantized_in_blocks(bits, accuracy, width) -> None:
    weight = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="mac")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    quantizer = MatMulNBitsQuantizer(
        model, bits=bits, block_size=16, is_symmetric=False, accuracy_level=accuracy
    )
    quantizer.process()
    report = inspect(quantizer.model.model, kernels=True)
    (node,) = report.nodes
    assert (node.op_type, node.kernel) == ("MatMulNBits", Kernel.PACKED)
    assert ("rounds the activation to 8 bits" in node.reason) == (width == 8)
    assert (node.macs, node.bops) == (5 * 32 * 6, 5 * 32 * 6 * bits * width)
    (tensor,) = (t for t in report.tensors.values() if t.role.value == "weight")
    assert (tensor.shape, tensor.counts) == ((6, 32), {bits: 192})
    assert tensor.stored_bytes == 192 * bits // 8


def test_reports_on_graphs_that_onnxruntime_optimized(tmp_path) -> None:
    """The optimized graph has fused operators, and the same cost as the file."""
    import onnxruntime as ort

    for make in (convnet, mlp):
        model = make()
        quantize_static(model, tmp_path / "q.onnx", Reader(model), per_channel=True)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / "o.onnx")
        ort.InferenceSession(tmp_path / "q.onnx", options, providers=["CPUExecutionProvider"])
        optimized = inspect(tmp_path / "o.onnx")
        assert {node.bops / node.macs for node in optimized.nodes} == {64}, optimized.nodes
        assert optimized.macs == inspect(model).macs
