from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import parser

from onnx_cgmq.graph.emitter import Emitter, optional, rank_of, replace, used_outputs
from onnx_cgmq.graph.files.load import load_model


def test_emitted_nodes_replace_a_node_and_keep_its_output_name() -> None:
    text = 'g (float[2] x) => (float[2] y) { y, m = Dropout(x, "", "") }'
    model = load_model(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}'))
    (node,) = model.graph
    node.name = "old"
    assert optional(node, 0) is model.graph.inputs[0]
    assert [optional(node, index) for index in (1, 2, 3)] == [None, None, None]
    assert used_outputs(node) == {0}

    emit = Emitter(node, 21)
    scaled = emit("Mul", node.inputs[0], emit.constant([2, 3]), rank=1)
    result = emit("Selu", scaled, attributes={"alpha": 2.0})
    assert (rank_of(scaled), rank_of(result), rank_of(None)) == (1, None, None)
    replace(node, [result])

    assert [n.op_type for n in model.graph] == ["Constant", "Mul", "Selu"]
    assert all((n.name or "").startswith("old.") for n in model.graph)
    (output,) = model.graph.outputs
    assert (output.name, output.dtype, output.shape) == ("y", ir.DataType.FLOAT, ir.Shape([2]))
    constant = model.graph[0].outputs[0].const_value
    assert constant is not None
    np.testing.assert_array_equal(constant.numpy(), [2, 3])
