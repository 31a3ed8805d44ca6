from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort.shapes import set_types_of_onnxruntime


def sum_of_a_foreign_operator(domain="com.microsoft") -> ir.Model:
    """``QLinearMatMul(QLinearAdd(a, a), w)``, where the type of the sum is unknown."""
    scale = ["s", "z"]
    nodes = [
        helper.make_node(
            "QLinearAdd", ["a", *scale, "a", *scale, *scale], ["t"], name="add", domain=domain
        ),
        helper.make_node("QLinearMatMul", ["t", *scale, "w", *scale, *scale], ["y"], name="mac"),
    ]
    weight = np.arange(20, dtype=np.uint8).reshape(4, 5)
    constants = {"s": np.float32(0.1), "z": np.uint8(0), "w": weight}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, ["n", 5])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(domain, 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def test_set_types_of_onnxruntime_sets_type_and_shape() -> None:
    model = sum_of_a_foreign_operator()
    (value,) = model.graph.node("add").outputs
    set_types_of_onnxruntime(model, [value])
    assert value.dtype is ir.DataType.UINT8
    assert str(value.shape) == "[n,4]"
    assert [output.name for output in model.graph.outputs] == ["y"]


def test_an_unknown_rank_is_not_taken_for_a_scalar() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[n,4] x, int64[k] sizes) => (float[m] y) {
            r = Reshape (x, sizes)
            y = Relu (r)
        }"""
    )
    (value,) = model.graph[0].outputs
    set_types_of_onnxruntime(model, [value])
    assert value.dtype is ir.DataType.FLOAT
    assert value.shape is None


def test_types_that_onnxruntime_does_not_know_stay_open() -> None:
    model = sum_of_a_foreign_operator("com.example")
    (value,) = model.graph.node("add").outputs
    set_types_of_onnxruntime(model, [value])
    assert value.dtype is None


def test_inspect_counts_macs_after_operators_of_onnxruntime() -> None:
    report = inspect(sum_of_a_foreign_operator())
    assert (report.macs, report.bops) == (20, 20 * 64)
