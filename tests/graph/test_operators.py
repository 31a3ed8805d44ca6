from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_cgmq.graph.operators import MAC_OP_TYPES, mac_spec, moves_codes


def node(op_type, inputs=3, domain="", **attributes):
    values = [ir.Value(name=f"v{index}") for index in range(inputs)]
    attrs = [ir.AttrInt64(k, v) if isinstance(v, int) else ir.AttrFloat32(k, v)
             for k, v in attributes.items()]  # fmt: skip
    return ir.Node(domain, op_type, values, attrs)


def test_operators():
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
def test_integer_kernels(mac, expected):
    assert mac_spec(mac).integer_kernel(mac) is expected


def test_bias():
    conv, without = node("Conv"), node("Conv", 2)
    assert mac_spec(conv).bias_value(conv) is conv.inputs[2]
    assert mac_spec(without).bias_value(without) is None
    matmul = node("MatMul", 2)
    assert mac_spec(matmul).bias_value(matmul) is None


@pytest.mark.parametrize(
    ("op", "moves"),
    [("MaxPool", True), ("Reshape", True), ("Relu", False), ("AveragePool", False)],
)
def test_moves_codes(op, moves):
    assert moves_codes(node(op, 1)) is moves
    assert not moves_codes(node(op, 1, domain="com.example"))
