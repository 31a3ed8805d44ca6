from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_cgmq.cost import products
from onnx_cgmq.graph import operators
from onnx_cgmq.graph.mac_operators import LOOKUP
from onnx_cgmq.graph.operators import (
    MAC_OP_TYPES,
    computes_on_codes,
    is_quantized_operator,
    mac_spec,
    moves_codes,
)


def node(op_type, inputs=3, domain="", **attributes):
    values = [ir.Value(name=f"v{index}") for index in range(inputs)]
    attrs = [ir.AttrInt64(k, v) if isinstance(v, int) else ir.AttrFloat32(k, v)
             for k, v in attributes.items()]  # fmt: skip
    return ir.Node(domain, op_type, values, attrs)


def test_mac_spec_knows_standard_mac_operators_only():
    assert {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "Einsum"} <= set(MAC_OP_TYPES)
    assert "QLinearConv" not in MAC_OP_TYPES
    assert mac_spec(node("Relu", 1)) is None
    assert mac_spec(node("Conv", domain="ai.onnx")) is not None
    assert mac_spec(node("Conv", domain="com.example")) is None


@pytest.mark.parametrize(
    ("op", "operand", "rank", "attributes", "axis"),
    [
        ("Conv", 1, 4, {}, 0),
        ("Conv", 0, 4, {}, None),
        ("ConvTranspose", 1, 5, {}, 1),
        ("Gemm", 1, 2, {}, 1),
        ("Gemm", 1, 2, {"transB": 1}, 0),
        ("Gemm", 0, 2, {}, 0),
        ("Gemm", 0, 2, {"transA": 1}, 1),
        ("MatMul", 1, 2, {}, 1),
        ("MatMul", 1, 4, {}, 3),
        ("MatMul", 1, 1, {}, None),
        ("MatMul", 0, 3, {}, 1),
    ],
)
def test_axis_of_output_channels(op, operand, rank, attributes, axis):
    mac = node(op, **attributes)
    spec = mac_spec(mac)
    assert spec is not None
    assert spec.output_axis(mac, operand, rank) == axis


@pytest.mark.parametrize(
    ("mac", "expected"),
    [
        (node("Conv"), True),
        (node("ConvTranspose"), False),
        (node("Gemm"), True),
        (node("Gemm", alpha=1.0, beta=1.0), True),
        (node("Gemm", alpha=0.5), False),
        (node("Gemm", beta=2.0), False),
        (node("MatMul", 2), True),
    ],
)
def test_mac_spec_says_which_nodes_have_integer_kernels(mac, expected):
    assert mac_spec(mac).integer_kernel(mac) is expected


def test_bias_value_is_the_bias_input_if_there_is_one():
    conv, without = node("Conv"), node("Conv", 2)
    assert mac_spec(conv).bias_value(conv) is conv.inputs[2]
    assert mac_spec(without).bias_value(without) is None
    matmul = node("MatMul", 2)
    assert mac_spec(matmul).bias_value(matmul) is None


CODES = np.array([-3.0, 0.5, 2.0, 7.0, -0.5, 1.0, 0.0, 4.0], dtype=np.float32).reshape(1, 2, 2, 2)

# A node on x [1, 2, 2, 2], which may read the constants `fill`, `sizes`, `starts` ... below.
MOVES = {
    "DepthToSpace": "<blocksize = 1> (x)",
    "Dropout": "(x)",
    "Expand": "(x, shape)",
    "Flatten": "(x)",
    "Gather": "<axis = 3> (x, indices)",
    "GlobalMaxPool": "(x)",
    "Identity": "(x)",
    "MaxPool": "<kernel_shape = [2, 2]> (x)",
    "Pad": "(x, pads)",
    "Reshape": "(x, flat)",
    "Resize": '<mode = "nearest"> (x, , scales)',
    "Slice": "(x, starts, ends)",
    "SpaceToDepth": "<blocksize = 2> (x)",
    "Split": "<axis = 1, num_outputs = 1> (x)",
    "Squeeze": "(x)",
    "Tile": "(x, shape)",
    "Transpose": "(x)",
    "Unsqueeze": "(x, starts)",
}


def model_of(op: str, call: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[1,2,2,2] x) => (float y)
        <int64[4] shape = {{2, 2, 2, 2}}, int64[1] indices = {{1}}, int64[2] flat = {{2, 4}},
         int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, float[4] scales = {{1.0, 1.0, 2.0, 2.0}},
         int64[1] starts = {{0}}, int64[1] ends = {{1}}, float one = {{1.0}}>
        {{ y = {op} {call} }}"""
    )


def test_every_mover_has_a_case() -> None:
    row = {op for op in onnx_operators() if moves_codes(read(op, MOVES.get(op, "(x)")))}
    assert row == set(MOVES)


@pytest.mark.parametrize("op", MOVES)
def test_movers_commute_with_a_grid(op) -> None:
    """``f(q(x)) == q(f(x))`` for node ``f`` and quantizer ``q``, in the evaluator of onnx."""
    run = ReferenceEvaluator(model_of(op, MOVES[op])).run

    def quantize(x):
        return np.round(x / np.float32(1.5)) * np.float32(1.5)

    np.testing.assert_array_equal(run(None, {"x": quantize(CODES)})[0],
                                  quantize(run(None, {"x": CODES})[0]))  # fmt: skip


@pytest.mark.parametrize(
    ("op", "call"),
    [
        ("AveragePool", "<kernel_shape = [2, 2]> (x)"),
        ("Pad", "(x, pads, one)"),
        ("Relu", "(x)"),
        ("Resize", '<mode = "linear"> (x, , scales)'),
    ],
)
def test_operators_that_compute_new_values_are_no_movers(op, call) -> None:
    assert not moves_codes(read(op, call))


def test_an_operator_of_another_domain_is_another_operator() -> None:
    assert moves_codes(node("MaxPool", 1))
    assert not moves_codes(node("MaxPool", 1, domain="com.example"))


def test_rows_of_the_table_name_operators_of_onnx() -> None:
    standard = onnx_operators()
    names = [key for key in operators._TABLE if not key.startswith("com.microsoft.")]
    assert set(names) <= standard


def test_every_mac_operator_has_products() -> None:
    macs = {key for key, row in operators._TABLE.items() if row.mac not in (None, LOOKUP)}
    assert macs == set(products._PRODUCTS)


def test_operators_on_integer_codes_are_recognized() -> None:
    assert is_quantized_operator(node("QuantizeLinear", 2))
    assert is_quantized_operator(node("QuantizeLinear", 2, domain="com.microsoft"))
    assert is_quantized_operator(node("Quant", 4, domain="onnx.brevitas"))
    assert is_quantized_operator(node("QLinearSomethingNew", 2, domain="com.microsoft"))
    assert not is_quantized_operator(node("Conv", 2))
    assert computes_on_codes("QGemm")
    assert computes_on_codes("QLinearConv")
    assert not computes_on_codes("MatMulNBits")
    assert not computes_on_codes("DequantizeLinear")


def onnx_operators() -> set[str]:
    return {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}


def read(op: str, call: str) -> ir.Node:
    """The node of :func:`model_of`, loaded, with its first output only."""
    proto = model_of(op, call)
    del proto.graph.node[0].output[1:]
    return ir.from_proto(proto).graph[0]
