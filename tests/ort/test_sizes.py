from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_cgmq.contract.identifiers import SHAPES_KEY
from onnx_cgmq.cost.macs import mac_ops
from onnx_cgmq.cost.notes import cost_notes
from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.graph.input_shapes import input_shapes, open_inputs, set_input_shapes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort import probe
from onnx_cgmq.ort.sizes import Sizes
from onnx_cgmq.preparation.prepare import prepare


def model(text: str) -> ir.Model:
    """The model of a text, where ``HALVES`` stands for the values of a weight (24 or 15)."""
    count = 24 if "[4, 6]" in text else 15
    header = '<ir_version: 10, opset_import: ["" : 21]>'
    text = text.replace("HALVES", ", ".join(["0.5"] * count))
    return ir.from_proto(onnx.parser.parse_model(f"{header}\n{text}"))


def tokens() -> ir.Model:
    """Rows of a sequence are merged with the batch, split again, and multiplied with each other."""
    return model(
        """
        g (float[batch, seq, 4] x) => (float[batch, seq, s2] y)
        <float[4, 6] w = {HALVES}, int64[2] flat = {-1, 4}, int64[1] six = {6}, int64[1] end = {2},
         int64[1] start = {0}>
        {
            rows = Reshape (x, flat)
            [project] h = MatMul (rows, w)
            whole = Shape (x)
            lead = Slice (whole, start, end)
            split = Concat <axis = 0> (lead, six)
            t = Reshape (h, split)
            u = Transpose <perm = [0, 2, 1]> (t)
            [scores] y = MatMul (t, u)
        }
        """
    )


def macs(graph: ir.Model) -> dict[str, int]:
    return {op.node: op.macs for op in mac_ops(graph)}


def with_shape(**shapes) -> ir.Model:
    graph = tokens()
    set_input_shapes(graph, shapes)
    return graph


def test_sizes_follow_from_the_inputs_through_the_graph() -> None:
    assert macs(with_shape(x=(1, 5, 4))) == {"project": 5 * 4 * 6, "scores": 5 * 5 * 6}
    assert macs(with_shape(x=(3, 5, 4))) == {"project": 3 * 5 * 4 * 6, "scores": 3 * 5 * 5 * 6}


def test_open_sizes_count_as_1() -> None:
    assert macs(with_shape()) == {"project": 4 * 6, "scores": 6}
    assert open_inputs(tokens()) == ("x",)


def test_inspect_and_the_gated_model_count_the_same_macs() -> None:
    float_model = prepare(ir.to_proto(with_shape()))
    gated = insert_gates(float_model, shapes={"x": (1, 5, 4)})
    assert macs(gated) == {"project": 120, "scores": 150}
    assert SHAPES_KEY not in float_model.metadata_props
    assert {n.name: n.macs for n in inspect(float_model, {"x": (1, 5, 4)}).nodes} == macs(gated)


def test_macs_of_a_fixed_batch_are_divided_by_its_samples() -> None:
    fixed = model(
        """
        g (float[6, 2, 3] x) => (float[12, 5] y) <int64[2] flat = {-1, 3}, float[3, 5] w = {HALVES}>
        { rows = Reshape (x, flat)
          [mac] y = MatMul (rows, w) }
        """
    )
    assert macs(fixed) == {"mac": 2 * 3 * 5}
    assert Sizes(fixed).samples == 6


def layers_with_heads() -> ir.Model:
    """Two layers whose heads are split as older exporters write it: by sizes that are computed."""
    layer = """
        [query{n}] q{n} = MatMul (h{n}, w)
        s{n} = Shape (q{n})
        b{n} = Gather (s{n}, zero)
        l{n} = Gather (s{n}, one)
        d{n} = Gather (s{n}, two)
        e{n} = Div (d{n}, heads)
        f{n} = Cast <to = 7> (e{n})
        bu{n} = Unsqueeze (b{n}, first)
        lu{n} = Unsqueeze (l{n}, first)
        hu{n} = Unsqueeze (heads, first)
        fu{n} = Unsqueeze (f{n}, first)
        c{n} = Concat <axis = 0> (bu{n}, lu{n}, hu{n}, fu{n})
        r{n} = Reshape (q{n}, c{n})
        t{n} = Transpose <perm = [0, 2, 1, 3]> (r{n})
        k{n} = Transpose <perm = [0, 2, 3, 1]> (r{n})
        [scores{n}] p{n} = MatMul (t{n}, k{n})
        [mix{n}] z{n} = MatMul (p{n}, t{n})
        u{n} = Transpose <perm = [0, 2, 1, 3]> (z{n})
        v{n} = Shape (u{n})
        vb{n} = Gather (v{n}, zero)
        vl{n} = Gather (v{n}, one)
        vbu{n} = Unsqueeze (vb{n}, first)
        vlu{n} = Unsqueeze (vl{n}, first)
        vc{n} = Concat <axis = 0> (vbu{n}, vlu{n}, hidden)
        h{m} = Reshape (u{n}, vc{n})
    """
    layers = "".join(layer.format(n=n, m=n + 1) for n in range(2))
    return model(
        f"""
        g (float[batch, seq, 6] x) => (float[b, s, 6] y)
        <float[6, 6] w = {{{", ".join(["0.5"] * 36)}}}, int64 zero = {{0}}, int64 one = {{1}},
         int64 two = {{2}}, int64 heads = {{3}}, int64[1] first = {{0}}, int64[1] hidden = {{6}}>
        {{ h0 = Identity (x)
          {layers}
          y = Identity (h2) }}
        """
    )


def test_sizes_that_the_graph_computes_are_computed() -> None:
    gated = insert_gates(ir.to_proto(layers_with_heads()), shapes={"x": (1, 5, 6)})
    counts = macs(gated)
    for n in range(2):
        assert counts[f"scores{n}"] == counts[f"mix{n}"] == 3 * 5 * 5 * 2
    assert not cost_notes(gated)
    report = inspect(ir.to_proto(layers_with_heads()), {"x": (1, 5, 6)})
    assert {node.name: node.macs for node in report.nodes} == counts
    assert not report.notes


def test_shapes_of_unknown_inputs_or_wrong_sizes_are_refused() -> None:
    graph = tokens()
    with pytest.raises(ConfigError, match="'z': the model has no such input; its inputs are x"):
        set_input_shapes(graph, {"z": (1,)})
    with pytest.raises(ConfigError, match=r"1x5x3 of input 'x' does not fit .*\[batch, seq, 4\]"):
        set_input_shapes(graph, {"x": (1, 5, 3)})
    with pytest.raises(ConfigError, match=r"1x5 of input 'x' does not fit"):
        set_input_shapes(graph, {"x": (1, 5)})


def test_two_sizes_for_one_dimension_are_refused() -> None:
    pair = model("g (float[n, s] a, float[n, s] b) => (float[n, s] y) { y = Add (a, b) }")
    with pytest.raises(ConfigError, match="dimension 's' of input 'b' is 4, but 3 in"):
        set_input_shapes(pair, {"a": (1, 3), "b": (1, 4)})


def test_a_question_mark_is_no_name_of_a_dimension() -> None:
    graph = model("g (float[n, s, s] x) => (float[n, s, s] y) { y = Relu (x) }")
    graph.graph.inputs[0].shape = ir.Shape(["?", "?", "?"])
    set_input_shapes(graph, {"x": (1, 3, 4)})
    assert Sizes(graph).shape(graph.graph.inputs[0]) == (1, 3, 4)
    assert Sizes(graph).shape(graph.graph.outputs[0]) == (1, 3, 4)


@pytest.mark.parametrize(
    "text",
    [
        "[1",
        "{" * 200_000,
        '{"x": [Infinity, 1, 1]}',
        '{"z": [1]}',
        '{"x": [1, 5, 3]}',
        '{"x": [1, -2, 4]}',
    ],
)
def test_damaged_input_shapes_are_refused(text) -> None:
    """What does not fit the inputs is as damaged as what is no JSON."""
    graph = tokens()
    graph.metadata_props[SHAPES_KEY] = text
    with pytest.raises(ModelError, match="damaged"):
        input_shapes(graph)


def test_sizes_after_operators_of_onnxruntime_are_found() -> None:
    """The size of an output of QGemm, which the model leaves open, follows from the input."""
    zeros = ["s", "z", "w", "s", "z", "", "s", "z"]
    nodes = [
        helper.make_node("QGemm", ["x", *zeros], ["h"], name="first", domain="com.microsoft"),
        helper.make_node("Flatten", ["h"], ["f"]),
        helper.make_node("QGemm", ["f", *zeros], ["y"], name="last", domain="com.microsoft"),
    ]
    constants = {"s": np.float32(1), "z": np.uint8(0), "w": np.ones((4, 4), np.uint8)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["m", 4])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    report = inspect(proto, {"x": (7, 4)})
    assert [node.macs for node in report.nodes] == [7 * 16, 7 * 16]
    assert not report.notes


def test_an_input_may_be_empty() -> None:
    """As the cache of a decoder is before its first token."""
    assert Sizes(with_shape(x=(1, 0, 4))).shape(tokens().graph.inputs[0]) == (1, 0, 4)
    assert macs(with_shape(x=(1, 0, 4)))["project"] == 0


def test_what_the_graph_makes_of_open_sizes_is_counted() -> None:
    """A head has 2 of 6 channels, so there are 3, though the length is open."""
    graph = model(
        """
        g (float[batch, seq, 4] x) => (float[batch, heads, seq, seq] y)
        <float[4, 6] w = {HALVES}, int64[1] rest = {-1}, int64[1] size = {2}, int64[1] end = {2},
         int64[1] start = {0}>
        {
            [project] h = MatMul (x, w)
            whole = Shape (x)
            lead = Slice (whole, start, end)
            split = Concat <axis = 0> (lead, rest, size)
            t = Reshape (h, split)
            q = Transpose <perm = [0, 2, 1, 3]> (t)
            k = Transpose <perm = [0, 2, 3, 1]> (t)
            [scores] y = MatMul (q, k)
        }
        """
    )
    assert macs(graph) == {"project": 4 * 6, "scores": 3 * 2}
    assert "count as 1" in "".join(inspect(ir.to_proto(graph)).notes)
    set_input_shapes(graph, {"x": (1, 5, 4)})
    assert macs(graph) == {"project": 5 * 4 * 6, "scores": 3 * 5 * 5 * 2}


def test_sizes_behind_a_loop_are_found_by_a_run() -> None:
    graph = model(
        """
        g (float[batch, 2, 4] x) => (float[batch, rows, 6] y)
        <float[4, 6] w = {HALVES}, int64 times = {2}, bool yes = {1}>
        {
            s = Loop (times, yes, x) <body = b (int64 i, bool c, float[batch, n, 4] t) =>
                (bool d, float[batch, m, 4] u) { d = Identity (c)  u = Concat <axis = 1> (t, t) }>
            [mac] y = MatMul (s, w)
        }
        """
    )
    assert macs(graph) == {"mac": 8 * 4 * 6}


def test_a_run_that_would_take_gigabytes_is_not_made(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(probe, "new_session", lambda *args, **settings: made.append(args))
    graph = model(
        """
        g (float[batch, 2, 4] x) => (float[rows, 6] y)
        <float[4, 6] w = {HALVES}, int64[1] many = {17179869184}, int64[2] flat = {-1, 4}>
        {
            ones = ConstantOfShape (many)
            found = NonZero (ones)
            column = Reshape (found, flat)
            floats = Cast <to = 1> (column)
            [mac] y = MatMul (floats, w)
        }
        """
    )
    assert macs(graph) == {"mac": 4 * 6}
    assert not made
