"""Shapes behind operators for which inference gives none: from runs in onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.cost.macs import mac_ops
from onnx_cgmq.cost.notes import cost_notes
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort.ranks import open_ranks, set_ranks
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


def parse(body: str, x: str = "float[n, 4] x", y: str = "float[n, 4] y") -> onnx.ModelProto:
    values = ", ".join(f"{v:.2f}" for v in np.random.default_rng(1).normal(size=16))
    return onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 3]> g ({x}) => ({y})
        <float[4, 4] w = {{{values}}}, float[4, 4] v = {{{values}}}, int64 three = {{3}},
         float zero = {{0}}, bool yes = {{1}}> {{ {body} }}"""
    )


SCALED = """
    s = ai.onnx.ml.Scaler <offset = [0.5], scale = [1.5]> (x)
    [first] h = MatMul (s, w)
    r = Relu (h)
    [last] y = MatMul (r, v)
"""

LOOP = """
    [first] h = MatMul (x, w)
    total = ReduceSum <keepdims = 0> (x)
    positive = Greater (total, zero)
    k = If (positive) <then_branch = t () => (a) { a = Relu (h) },
                       else_branch = e () => (b) { b = Neg (h) }>
    l = Loop (three, , k) <body = g (int64 i, bool c, s) => (bool d, t) {
        d = Identity (c)
        [inner] m = MatMul (s, w)
        t = Tanh (m)
    }>
    [last] y = MatMul (l, v)
"""


def shapes(model: ir.Model) -> dict[str, str]:
    return {str(v.name): str(v.shape) for node in model.graph for v in node.outputs}


def test_a_scaler_keeps_the_shape_of_its_input() -> None:
    model = prepare(parse(SCALED))
    assert [value.name for value in open_ranks(model)] == ["s", "r"]
    set_ranks(model)
    assert not open_ranks(model)
    assert shapes(model)["s"] == "[n,4]"
    gated = insert_gates(parse(SCALED))
    assert {op.node: op.macs for op in mac_ops(gated)} == {"first": 16, "last": 16}
    assert not cost_notes(gated)


def test_a_bias_behind_an_operator_of_another_domain_becomes_part_of_its_product() -> None:
    body = SCALED.replace("h = MatMul (s, w)", "p = MatMul (s, w)  h = Add (p, bias)")
    model = parse(body)
    bias = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "bias")
    model.graph.initializer.append(bias)
    gated = insert_gates(model, target="generic", widths=(32,))
    assert [node.op_type for node in gated.graph if node.name in ("first", "last")] == [
        "Gemm",
        "MatMul",
    ]
    sessions = (open_session(given, threads=1) for given in (model, gated))
    expected, found = (session.run(None, {"x": X})[0] for session in sessions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [[], [{"x": X[:1]}], [{"x": X[:1]}, {"x": X[1:2]}]])
def test_loops_and_branches(samples) -> None:
    model = prepare(parse(LOOP))
    assert [value.name for value in open_ranks(model)] == ["l"]
    set_ranks(model, samples)
    assert shapes(model)["k"] == shapes(model)["l"] == "[n,4]"
    assert {op.node: op.macs for op in mac_ops(model)} == {"first": 16, "inner": 16, "last": 16}


def test_sizes_that_differ_between_runs_stay_open() -> None:
    body = """
        sum = ReduceSum <keepdims = 0> (x)
        times = Cast <to = 7> (sum)
        rows = Loop (times, yes) <body = g (int64 i, bool c) => (bool d, row) {
            d = Identity (c)
            row = ai.onnx.ml.Scaler <offset = [0.5], scale = [1.5]> (x)
        }>
        [last] y = MatMul (rows, w)
    """
    model = prepare(parse(body, y="float[m, n, 4] y"))
    set_ranks(model)
    (rows,) = [v for node in model.graph for v in node.outputs if v.name == "rows"]
    assert not isinstance(rows.shape[0], int)
    assert str(rows.shape[1]) == "n"
    assert rows.shape[2] == 4
    (note,) = cost_notes(insert_gates(model))
    assert (
        note == "these nodes have sizes that only the data decide, which count as 1: last (MatMul)"
    )


def test_a_model_that_does_not_run_is_left_alone() -> None:
    model = prepare(parse(SCALED))
    set_ranks(model, [{"wrong": X[:1]}])
    assert [value.name for value in open_ranks(model)] == ["s", "r"]


def test_the_written_file_counts_the_same() -> None:
    for body, bound in ((SCALED, "10%"), (LOOP, "60%")):
        result = quantize(parse(body), {"x": X}, bound, epochs=1, batch_size=16)
        assert result.report.bops == result.cost.bops
        assert result.report.macs == result.cost.macs
        assert inspect(result.model).bops == result.cost.bops
