"""Constants that explode are refused before they are computed; large models are not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files import limits
from onnx_cgmq.preparation.prepare import prepare


def model(body: str, weights: int = 8) -> onnx.ModelProto:
    """A product of matrices, scaled by what is computed: ``v``."""
    graph = ir.from_proto(
        onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 18]>
            g (float[n, 8] x) => (float[n, m] y) {{
                {body}
                most = ReduceMax <keepdims = 0> (v)
                h = MatMul (x, w)
                y = Mul (h, most)
            }}"""
        )
    )
    array = np.ones((8, weights), np.float32)
    weight = ir.Value(name="w", const_value=ir.tensor(array, name="w"))
    graph.graph.register_initializer(weight)
    return ir.to_proto(graph)


SIDE = "s = Constant <value = int64[2] {40000, 50000}> ()"
ONE = "one = Constant <value = float[1, 1] {1}> ()"
BOMBS = {
    "ConstantOfShape": f"{SIDE} v = ConstantOfShape (s)",
    "Expand": f"{SIDE} {ONE} v = Expand (one, s)",
    "Expand to many axes": "d = Constant <value = int64[30] {"
    + ", ".join(["2"] * 30)
    + "}> () one = Constant <value = float[1] {1}> () v = Expand (one, d)",
    "Tile": f"{SIDE} {ONE} v = Tile (one, s)",
    "Pad": "p = Constant <value = int64[4] {0, 0, 40000, 50000}> ()" + ONE + "v = Pad (one, p)",
    "Range": "a = Constant <value = int64 {0}> () b = Constant <value = int64 {8589934592}> ()"
    "d = Constant <value = int64 {1}> () r = Range (a, b, d) v = Cast <to = 1> (r)",
    "Concat": f"{ONE} k0 = Identity (one)"
    + "".join(f"k{i + 1} = Concat <axis = 0> (k{i}, k{i})" for i in range(38))
    + "v = Identity (k38)",
    "outer product": "c = Constant <value = int64[2] {40000, 1}> ()"
    "r = Constant <value = int64[2] {1, 40000}> ()"
    "a = ConstantOfShape (c) b = ConstantOfShape (r) v = MatMul (a, b)",
    "many": "s = Constant <value = int64[2] {2000, 1000}> ()"
    + ONE
    + "".join(f"k{i} = Expand (one, s)" for i in range(40))
    + f"v = Sum ({', '.join(f'k{i}' for i in range(40))})",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_explodes_is_refused(name, monkeypatch) -> None:
    monkeypatch.setattr(limits, "_CONSTANTS", 128 << 20)  # less for the test to fill
    with pytest.raises(ModelError, match=r"'\w+': .* store large constants in the model"):
        prepare(model(BOMBS[name]))


def test_a_model_with_weights_may_compute_more(monkeypatch) -> None:
    monkeypatch.setattr(limits, "_CONSTANTS", 1 << 16)
    body = "s = Constant <value = int64[2] {512, 64}> ()" + ONE + "v = Expand (one, s)"
    with pytest.raises(ModelError, match=r"take 131,\d+ bytes; at most \d+,\d+ are made"):
        prepare(model(body, weights=8))
    prepare(model(body, weights=512))


def test_what_is_found_in_constants_is_still_computed() -> None:
    """The result of NonZero has a size that only its input tells."""
    body = "b = Constant <value = int64[3] {1, 0, 1}> () i = NonZero (b) v = Cast <to = 1> (i)"
    assert [node.op_type for node in prepare(model(body)).graph] == ["MatMul"]


def test_a_product_that_takes_forever_is_left_in_the_graph() -> None:
    body = (
        "s = Constant <value = int64[1] {60000}> () a = ConstantOfShape (s)"
        'v = Einsum <equation = "a,b,c->"> (a, a, a)'
    )
    assert "Einsum" in [node.op_type for node in prepare(model(body)).graph]
