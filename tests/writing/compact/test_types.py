from __future__ import annotations

import onnx
import onnx_ir as ir

from onnx_cgmq.writing.compact.types import drop_inferable_types

TEXT = """<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
g (float[n, 4] x) => (float[n, 4] y) {
    r = Relu(x)
    u = com.microsoft.Unknown(r)
    y = Relu(u)
}"""


def test_only_types_that_can_be_inferred_are_removed() -> None:
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    relu, unknown, _ = model.graph
    for node in (relu, unknown):
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        node.outputs[0].shape = ir.Shape(["n", 4])
    drop_inferable_types(model)
    assert relu.outputs[0].type is None
    assert unknown.outputs[0].shape == ir.Shape(["n", 4])
    assert model.graph.outputs[0].shape == ir.Shape(["n", 4])


def test_a_shape_with_sizes_that_inference_does_not_find_is_kept() -> None:
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    value = model.graph[0].outputs[0]
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([7, 4])
    drop_inferable_types(model)
    assert value.shape == ir.Shape([7, 4])


def test_shapes_of_summands_before_normalization_are_kept() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float[n, 4] x, float[4] s) => (float[n, 4] y) {
        a = Relu(x)
        b = Sigmoid(x)
        c = Add(a, b)
        d = LayerNormalization(c, s)
        y = Relu(d)
    }"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    drop_inferable_types(model)
    kept = {value.name for node in model.graph for value in node.outputs if value.shape is not None}
    assert kept == {"a", "b", "y"}
