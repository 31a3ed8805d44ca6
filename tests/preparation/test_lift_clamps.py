"""Relu and Clip move up through movers, to the kernel that they belong to."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_cgmq.contract.decisions import Verdict, collected_decisions
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.lift_clamps import lift_clamps

CONSTANTS = """
    <float[4,2,1,3] w = {0.5, -1, 2, 0.25, -3, 1, 1, 1, -1, 2, 0.5, -2, 1, 0, -1, 0.5, 2, 2,
                         -1, -1, 3, 0.5, -2, 1},
     float[1] third = {0.3}, float one = {1.0}, float below = {-0.5}, float six = {6.0},
     int64[1] axis = {2}, int64[2] rows = {-1, 24}, int64[8] around = {0,0,0,1,0,0,0,1},
     int64[1] first = {0}, int64[1] second = {1}, int64[2] order = {2, 0}>"""


def _lifted(body: str) -> list[str]:
    """The operators after the pass. The outputs must not change, and must keep their names."""
    text = f"""<ir_version: 10, opset_import: ["": 21]> g (float[n,2,1,8] x) => (y)
    {CONSTANTS} {{ {body} }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    for node in model.graph:
        node.name = f"{node.op_type}_{node.outputs[0].name}"
    infer_shapes(model)
    before = ir.to_proto(model)
    shapes = {v.name: v.shape for node in model.graph for v in node.outputs}
    lift_clamps(model.graph)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    for node in model.graph:
        for value in node.outputs:
            assert value.shape == shapes.get(value.name, value.shape)
    x = np.random.default_rng(0).normal(size=(3, 2, 1, 8)).astype(np.float32)
    old, new = (open_session(m, optimize=False).run(None, {"x": x})[0] for m in (before, after))
    np.testing.assert_array_equal(new, old)
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    ("body", "operators"),
    [
        (
            "c = Conv(x, w) s = Squeeze(c, axis) r = Relu(s) y = Exp(r)",
            ["Conv", "Relu", "Squeeze", "Exp"],
        ),
        (
            "c = Conv(x, w) s = Squeeze(c, axis) t = Transpose(s) k = Clip(t, below, one) "
            "y = Exp(k)",
            ["Conv", "Clip", "Squeeze", "Transpose", "Exp"],
        ),
        (
            "c = Conv(x, w) f = Reshape(c, rows) r = Relu(f) u = Unsqueeze(r, axis) "
            "k = Clip(u, , six) y = Exp(k)",
            ["Conv", "Relu", "Clip", "Reshape", "Unsqueeze", "Exp"],
        ),
        (
            "c = Conv(x, w) p = MaxPool<kernel_shape=[1,2]>(c) r = Relu(p) y = Exp(r)",
            ["Conv", "Relu", "MaxPool", "Exp"],
        ),
        (
            "c = Conv(x, w) p = Pad(c, around) k = Clip(p, below, one) y = Exp(k)",
            ["Conv", "Clip", "Pad", "Exp"],
        ),
        (
            'c = Conv(x, w) p = Pad<mode="edge">(c, around) k = Clip(p, one, six) y = Exp(k)',
            ["Conv", "Clip", "Pad", "Exp"],
        ),
        (
            "c = Conv(x, w) a = Add(c, c) s = Squeeze(a, axis) r = Relu(s) y = Exp(r)",
            ["Conv", "Add", "Relu", "Squeeze", "Exp"],
        ),
    ],
)
def test_a_clamp_moves_above_movers(body, operators) -> None:
    assert _lifted(body) == operators


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w) r = Relu(c) s = Squeeze(r, axis) y = Exp(s)",  # it is in front already
        "c = Conv(x, w) s = Squeeze(c, axis) y = Relu(s)",  # the output keeps its name
        "s = Squeeze(x, axis) r = Relu(s) y = Exp(r)",  # no kernel
        "c = Conv(x, w) s = Squeeze(c, axis) e = Exp(s) r = Relu(e) y = Abs(r)",
        "c = Conv(x, w) s = Squeeze(c, axis) r = Relu(s) y = Add(r, s)",
        "c = Conv(x, w) s = Squeeze(c, axis) r = Relu(s) t = Squeeze(c, axis) y = Add(r, t)",
        "c = Conv(x, w) a, b = Split<axis=1, num_outputs=2>(c) r = Relu(a) y = Add(r, b)",
        "c = Conv(x, w) p = Pad(c, around) k = Clip(p, one, six) y = Exp(k)",
        "c = Conv(x, w) p = Pad(c, around, third) k = Relu(p) y = Exp(k)",
    ],
)
def test_other_clamps_stay(body) -> None:
    left = [part.split("(")[0].split("<")[0].strip() for part in body.split("= ")[1:]]
    assert _lifted(body) == left


def test_the_value_behind_keeps_its_name() -> None:
    text = f"""<ir_version: 10, opset_import: ["": 21]> g (float[n,2,1,8] x) => (y)
    {CONSTANTS} {{ c = Conv(x, w) s = Squeeze(c, axis) [act] r = Relu(s) y = Exp(r) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    infer_shapes(model)
    with collected_decisions() as decisions:
        lift_clamps(model.graph)
    names = [node.outputs[0].name for node in model.graph]
    assert names == ["c", "c.clamped", "r", "y"]
    assert [(d.name, d.verdict) for d in decisions] == [("act", Verdict.REWRITTEN)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = Squeeze(c, axis) r = Relu(s) y = Add(r, s)", "other nodes read what Squeeze"),
        ("s = Squeeze(c, axis) r = Relu(s) t = Squeeze(c, axis) y = Add(r, t)", "unclamped"),
        ("p = Pad(c, around) k = Clip(p, one, six) y = Exp(k)", "fills in zeros"),
    ],
)
def test_it_says_why_a_clamp_stays(body, reason) -> None:
    with collected_decisions() as decisions:
        _lifted(f"c = Conv(x, w) {body}")
    (decision,) = decisions
    assert decision.verdict is Verdict.LEFT
    assert reason in decision.reason
