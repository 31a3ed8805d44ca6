from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.stand_ins import stand_in_for_onnxruntime, stand_in_for_qonnx
from tests.support.foreign import MICROSOFT, foreign_model, quant


def test_shapes_pass_through_quantizers_of_qonnx() -> None:
    nodes = [
        quant("x", "q", "b"),
        helper.make_node("BipolarQuant", ["q", "s"], ["p"], domain="onnx.brevitas"),
        helper.make_node("Transpose", ["p"], ["y"]),
    ]
    constants = {"s": np.float32(1), "z": np.float32(0), "b": np.float32(3)}
    model = ir.from_proto(foreign_model(nodes, constants))
    infer_shapes(model)
    for value in (output for node in model.graph for output in node.outputs):
        assert value.dtype is ir.DataType.FLOAT
    assert str(model.graph.outputs[0].shape) == "[4,n]"
    assert [node.op_type for node in model.graph] == ["Quant", "BipolarQuant", "Transpose"]


def test_types_pass_through_quantizers_of_onnxruntime() -> None:
    def node(op_type, x, y):
        return helper.make_node(op_type, [x, "s", "z"], [y], domain=MICROSOFT)

    nodes = [
        node("QuantizeLinear", "x", "q"),
        helper.make_node("Transpose", ["q"], ["t"]),
        node("DequantizeLinear", "t", "y"),
    ]
    constants = {"s": np.float32(1), "z": np.int16(0)}
    proto = foreign_model(nodes, constants, opset=17)
    model = ir.from_proto(proto)
    infer_shapes(model)
    types = [node.outputs[0].dtype for node in model.graph]
    assert types == [ir.DataType.INT16, ir.DataType.INT16, ir.DataType.FLOAT]
    assert str(model.graph.outputs[0].shape) == "[4,n]"
    stand_in_for_qonnx(proto)
    assert proto.graph.node[0].op_type == "QuantizeLinear"
    stand_in_for_onnxruntime(proto)
    assert [(n.op_type, len(n.input)) for n in proto.graph.node[::2]] == [("Cast", 1)] * 2


def test_shapes_pass_through_rotary_embeddings_of_onnxruntime() -> None:
    node = helper.make_node("RotaryEmbedding", ["x", "p", "s", "s"], ["y"], domain=MICROSOFT)
    proto = foreign_model([node], {"p": np.int64([0]), "s": np.zeros((8, 2), np.float32)})
    model = ir.from_proto(proto)
    infer_shapes(model)
    assert str(model.graph.outputs[0].shape) == str(model.graph.inputs[0].shape)
    assert model.graph.outputs[0].dtype is ir.DataType.FLOAT
    assert model.graph[0].op_type == "RotaryEmbedding"


def test_quantizers_in_subgraphs_are_replaced_too() -> None:
    body = helper.make_graph(
        [quant("x", "inner", "b")],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)]
    constants = {"s": np.float32(1), "z": np.float32(0), "b": np.float32(3), "c": np.array(True)}
    proto = foreign_model(nodes, constants)
    stand_in_for_qonnx(proto)
    branch = onnx.helper.get_attribute_value(proto.graph.node[0].attribute[0])
    assert branch.node[0].op_type == "Identity"
