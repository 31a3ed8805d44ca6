"""Spelled-out hard sigmoids and hard swishes become HardSigmoid; look-alikes stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.hard_activations import fuse_hard_activations

NUMBERS = {"three": 3.0, "six": 6.0, "sixth": 1 / 6, "zero": 0.0, "five": 5.0, "one": 1.0}


def _model(body: str) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["": 21]> g (float[n,4,5] x) => (y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, number in NUMBERS.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(number), name))
    row = np.array([3.0], np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(row, "row"))
    return onnx.shape_inference.infer_shapes(model)


def _fused(proto: onnx.ModelProto) -> list[str]:
    """The operators after fusing. Outputs must not change, and a second run changes nothing."""
    model = ir.from_proto(proto)
    for index, node in enumerate(model.graph):
        node.name = f"n{index}"
    fuse_hard_activations(model)
    once = [node.op_type for node in model.graph]
    fuse_hard_activations(model)
    assert [node.op_type for node in model.graph] == once
    made = ir.to_proto(model)
    onnx.checker.check_model(made)
    assert [o.name for o in made.graph.output] == ["y"]
    x = np.random.default_rng(0).normal(0, 4, (3, 4, 5)).astype(np.float32)
    before, after = (open_session(m).run(["y"], {"x": x})[0] for m in (proto, made))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    return [name for name in once if name not in ("Add", "Sub", "Constant")]


@pytest.mark.parametrize(
    "body",
    [
        "y = HardSwish(x)",
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
        "a = Add(row, x) c = Clip(a, zero, six) m = Mul(c, x) y = Mul(sixth, m)",
        "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)",
    ],
)
def test_spelled_out_hard_swish_becomes_a_product_with_hard_sigmoid(body: str) -> None:
    assert _fused(_model(body)) == ["HardSigmoid", "Mul"]


def test_spelled_out_hard_sigmoid_becomes_hard_sigmoid() -> None:
    body = "a = Sub(x, five) c = Clip(a, zero, six) y = Div(c, six)"
    assert _fused(_model(body)) == ["HardSigmoid"]
    assert _fused(_model("y = HardSigmoid(x)")) == ["HardSigmoid"]


@pytest.mark.parametrize(
    "body",
    [
        "c = Clip(x, zero, six) y = Div(c, six)",  # nothing added
        "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, five)",  # not up to 1
        "a = Add(x, three) c = Clip(a, one, six) y = Div(c, six)",  # not from 0
        "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Add(d, c)",  # read twice
        "a = Add(x, three) c = Clip(a, zero, six) y = Mul(x, c)",  # not divided
        "a = Add(x, x) c = Clip(a, zero, six) y = Div(c, six)",  # not a constant
    ],
)
def test_clips_that_are_no_hard_sigmoid_stay(body: str) -> None:
    assert "HardSigmoid" not in _fused(_model(body))


def test_hard_swish_of_doubles_stays() -> None:
    text = '<ir_version: 10, opset_import: ["": 21]> g (double[4] x) => (y) { y = HardSwish(x) }'
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    fuse_hard_activations(model)
    assert [node.op_type for node in model.graph] == ["HardSwish"]
