"""Nodes that only read a shape read that of codes, and keep no kernel from integers."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write
from tests.support.convolutions import run
from tests.support.plans import make_plan, set_initializer

ATTENTION = """
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    v = MatMul(x, wv)
    kt = Transpose<perm=[0, 2, 1]>(k)
    scaled = Mul(q, third)
    scores = MatMul(scaled, kt)
    p = Softmax(scores)
    c = MatMul(p, v)
    o = MatMul(c, wo)
"""
ENDS = {
    "the product": "s = Size(c) f = Cast<to=1>(s) y = Div(o, f)",
    "a scaled value": "s = Size(scaled) f = Cast<to=1>(s) y = Div(o, f)",
    "a transposed value": "s = Size(kt) f = Cast<to=1>(s) y = Div(o, f)",
    "values that movers read": "s = Size(k) f = Cast<to=1>(s) y = Div(o, f)",
    "in a branch": """r = ReduceMax(o) b = Cast<to=9>(r)
        y = If(b) <
            then_branch = yes() => (float[n, 5, 8] a) {
                s = Shape(c) ones = ConstantOfShape<value=float[1] {2.0}>(s) a = Add(ones, o)
            },
            else_branch = no() => (float[n, 5, 8] d) { d = Identity(o) }
        >""",
}


def attention(end: str) -> ir.Model:
    """Gated attention of one head, where something reads shapes on the way."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 5, 8] x) => (float[n, 5, 8] y) {'
        f"{ATTENTION} {ENDS[end]} }}"
    )
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.4, (8, 8)) for name in ("wq", "wk", "wv", "wo")}
    arrays["third"] = np.array(0.35)
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{index}"
    gated = insert_gates(model, activation_granularity="tensor")
    for node, spec in quantizer_nodes(gated).values():
        if spec.role is Role.ACTIVATION:
            set_initializer(node.inputs[-2], np.full(spec.range_shape, 2.5))
    return gated


@pytest.mark.parametrize("end", ENDS)
def test_readers_of_shapes_read_codes(end) -> None:
    gated = attention(end)
    plan = make_plan(gated, {n: np.array(8) for n in quantizer_nodes(gated)})
    written = write(gated, plan, compact=False)
    onnx.checker.check_model(ir.to_proto(written.model), full_check=True)
    readers = [n for n in written.model.graph.all_nodes() if standard_op(n) in ("Shape", "Size")]
    assert [node.inputs[0].dtype for node in readers] == [ir.DataType.UINT8]
    report = inspect(written.model, kernels=True)
    assert {node.kernel for node in report.nodes} == {Kernel.INTEGER}
    x = np.random.default_rng(1).normal(0, 1, (6, 5, 8)).astype(np.float32)
    wanted = run(gated, x, optimize=False)
    np.testing.assert_allclose(run(written.model, x, False), wanted, rtol=0, atol=1e-5)
    found = run(written.model, x, True)
    assert np.mean(np.abs(found - wanted) > 1e-5) < 0.05  # but for single codes
