from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq import ConfigError, Verdict, calibrate, explain, insert_gates, write_back
from onnx_cgmq.data.source import open_data
from onnx_cgmq.learn.pair_room import leave_room_for_pairs
from onnx_cgmq.mirror import Mirror
from tests.support.toys import convnet, toy_data

MODEL = """
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[n,2,4,4] x) => (float[n,3] y)
    <float three = {3.0}, float zero = {0.0}, float six = {6.0},
     float nine = {9.0}, int64[1] last = {3}, int64[2] pixels = {2, 3}>
    {
        c1 = Conv (x, w1)
        s = Mul (c1, factor)
        t = Add (s, three)
        k = Clip (t, zero, nine)
        m = ReduceMean <keepdims = 0> (k, pixels)
        n1 = ReduceMean (k, last)
        f = Flatten (n1)
        z = Gemm <transB = 1> (f, w2)
        y = Add (z, m)
    }"""


def model() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(MODEL)
    rng = np.random.default_rng(0)
    for name, shape in (("factor", (1, 3, 1, 1)), ("w1", (3, 2, 1, 1)), ("w2", (3, 12))):
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return proto


def reasons(decisions) -> dict[tuple[str, Verdict], str]:
    return {(decision.name, decision.verdict): decision.reason for decision in decisions}


def test_explain_gives_reasons_for_a_float_model() -> None:
    found = reasons(explain(model()))
    assert found["s", Verdict.REWRITTEN] == "its factors fit into 'c1'"
    assert "upper limit" in found["k", Verdict.LEFT]
    assert "integer kernel" in found["m", Verdict.REWRITTEN]
    assert found["n1", Verdict.LEFT] == "it is not over height and width"
    assert found["x", Verdict.QUANTIZED] == "Conv 'c1' multiplies it"
    assert found["w2", Verdict.QUANTIZED] == "Gemm 'z' multiplies it"
    assert found["k", Verdict.QUANTIZED].startswith("the kernels around it")
    assert found["c1", Verdict.INTEGER] == ""


def test_explain_applies_settings() -> None:
    found = reasons(explain(model(), keep_float=["z"]))
    assert found["z", Verdict.FLOAT]
    with pytest.raises(ConfigError, match="matches no tensor"):
        explain(model(), keep_float=["no such node"])


def test_explain_selects_by_names_and_patterns() -> None:
    assert {decision.name for decision in explain(model(), ["w?", "x"])} == {"w1", "w2", "x"}
    assert explain(model(), ["nothing"]) == ()


def test_explain_does_not_change_the_model() -> None:
    proto = model()
    before = proto.SerializeToString()
    explain(proto)
    assert proto.SerializeToString() == before


def test_explain_gives_reasons_for_a_written_model() -> None:
    gated = insert_gates(model(), widths=(8,), keep_float=["w2"])
    mirror = Mirror(gated)
    leave_room_for_pairs(mirror)
    written = write_back(gated, mirror.plan())
    found = reasons(explain(written))
    assert found["x", Verdict.QUANTIZED] == "Conv 'c1' multiplies it at 8 bits"
    assert found["c1", Verdict.INTEGER] == ""
    assert found["z", Verdict.FLOAT]


def test_explain_names_slow_integer_kernels() -> None:
    gated = insert_gates(convnet(), granularity="element")
    mirror = Mirror(gated)
    calibrate(mirror, open_data(toy_data(convnet()), gated))
    found = reasons(explain(write_back(gated, mirror.plan())))
    assert "UINT8" in found[("conv2", Verdict.SLOW)]
