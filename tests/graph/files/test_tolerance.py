from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.preparation.prepare import prepare


def build(nodes: list[onnx.NodeProto], opset: int, channels: int = 4) -> onnx.ModelProto:
    """A model with an output of unknown rank, the way onnxruntime writes them."""
    weights = [
        numpy_helper.from_array(np.arange(1, 17, dtype=np.float32).reshape(4, 4) / 9, "w"),
        numpy_helper.from_array(np.array([1, 2, 3, 4][:channels], np.float32), "s"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, inputs: list[str], **attributes: object) -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node(op, ["h", *inputs], ["y"], name="odd", **attributes),
    ]


@pytest.mark.parametrize(
    ("nodes", "opset", "channels"),
    [
        (node("Relu", []), 13, 4),
        (node("LayerNormalization", ["s", "s"], axis=-1), 12, 4),
        (node("SimplifiedLayerNormalization", ["s"], axis=-1, epsilon=1e-5), 14, 4),
        (node("GroupNormalization", ["s", "s"], num_groups=2), 18, 2),
    ],
)
def test_models_that_onnxruntime_runs_are_accepted(
    nodes: list[onnx.NodeProto], opset: int, channels: int
) -> None:
    model = build(nodes, opset, channels)
    before = model.SerializeToString()
    prepared = prepare(model)
    assert model.SerializeToString() == before
    feeds = {"x": np.array([[1, -2, 3, 0.5], [0, 1, 0, -1]], np.float32)}
    after = ir.serde.serialize_model(prepared).SerializeToString()
    found = ort.InferenceSession(after).run(None, feeds)[0]
    np.testing.assert_allclose(found, _expected(model, feeds), rtol=1e-4, atol=1e-6)


def _expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    result = session.run(None, feeds)[0]
    assert isinstance(result, np.ndarray)
    return result


def test_an_operator_that_onnxruntime_lacks_is_refused() -> None:
    model = build(node("NoSuchOperator", []), 13)
    with pytest.raises(ModelError, match="No Op registered for NoSuchOperator"):
        load_model(model)
    assert [v.type.tensor_type.HasField("shape") for v in model.graph.output] == [False]


def test_sizes_that_only_say_unknown_become_open() -> None:
    model = build(node("Relu", []), 13)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "?"
    shape = load_model(model).graph.inputs[0].shape
    assert shape is not None
    assert [getattr(size, "value", size) for size in shape] == [None, None]


def test_a_domain_of_qonnx_need_not_be_imported() -> None:
    """QONNX itself writes files that lack the import, when it makes Quant nodes of other nodes."""
    quant = helper.make_node("Quant", ["h", "s", "s", "s"], ["y"], domain="qonnx.custom_op.general")
    model = build([helper.make_node("MatMul", ["x", "w"], ["h"]), quant], 13)
    before = model.SerializeToString()
    loaded = load_model(model)
    assert [node.op_type for node in loaded.graph] == ["MatMul", "Quant"]
    assert model.SerializeToString() == before
    model.graph.node[1].domain = "com.example"
    with pytest.raises(ModelError, match=r"No opset import for domain 'com\.example'"):
        load_model(model)
