"""Carried quantizers, and the integer kernels that onnxruntime runs thanks to them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, GridForm
from onnx_cgmq.contract.decisions import collected_decisions
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.integer_path import values_on_the_way_to
from onnx_cgmq.gating.predicted_kernels import Kernel, predict_kernels
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.nodes import node_key
from onnx_cgmq.graph.operators import computes_on_codes
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.executed import executed_operators
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.writing.write_back import write, write_back
from tests.support.plans import draw_widths, make_plan
from tests.support.referee import optimized_operators

RESIDUAL = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    r0 = Relu(c0)
    c1 = Conv<pads=[1,1,1,1]>(r0, w1)
    a = Add(c1, r0)
    r1 = Relu(a)
    y = Conv(r1, w2)
"""
SHORTCUT = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    r0 = Relu(c0)
    c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(r0, w1)
    s = Slice(r0, begin, end, axes, steps)
    p = Pad(s, pads)
    p2 = Slice(p, zero, four, one)
    a = Add(c1, p2)
    g = GlobalAveragePool(a)
    f = Flatten(g)
    y = Gemm<transB=1>(f, v)
"""
GATED = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    s0 = Sigmoid(c0)
    m = Mul(c0, s0)
    c1 = Conv<pads=[1,1,1,1]>(m, w1)
    k = Concat<axis=1>(c1, m)
    y = Conv(k, w3)
"""
CLIPPED = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    r0 = Clip(c0, low, six)
    c1 = Conv<pads=[1,1,1,1]>(r0, w1)
    y = Conv(c1, w2)
"""
SQUEEZED = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    t = Add(c0, three)
    k = Clip(t, low, top)
    m = Mul(c0, k)
    h = Div(m, top)
    g = GlobalAveragePool(h)
    c1 = Conv(g, p0)
    r = Relu(c1)
    c2 = Conv(r, p0)
    s = HardSigmoid(c2)
    e = Mul(h, s)
    y = Conv(e, w2)
"""
MOVED = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    u = Resize<mode="nearest", nearest_mode="floor">(c0, , sizes)
    p = Pad<mode="edge">(u, around)
    d = DepthToSpace<blocksize=2>(p)
    t = Tile(d, four4)
    g = Gather<axis=1>(t, order)
    c1 = Conv(g, w0)
    z = Pad(c1, around)
    y = Conv(z, w2)
"""
HALVES = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    a, b = Split<axis=1, num_outputs=2>(c0)
    c1 = Conv(b, half)
    c2 = Conv(a, half)
    k = Add(c1, c2)
    y = Conv(k, w2)
"""
TURNED = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    t0 = Transpose<perm=[0,1,3,2]>(c0)
    r0 = Relu(t0)
    c1 = Conv<pads=[1,1,1,1]>(r0, w1)
    m1 = MaxPool<kernel_shape=[2,2]>(c1)
    f1 = Flatten(m1)
    k1 = Clip(f1, low, six)
    y = Gemm<transB=1>(k1, rows)
"""
TURNED_FLOAT = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    t0 = Transpose<perm=[0,1,3,2]>(c0)
    r0 = Relu(t0)
    n0 = LayerNormalization(r0, scale)
    y = Conv(n0, w2)
"""
SCALED = """
    q = MatMul(x, u0)
    k = MatMul(x, u1)
    s = Mul(q, third)
    t = Transpose<perm=[0,2,1]>(k)
    l = Mul(t, third)
    a = MatMul(s, l)
    y = Softmax(a)
"""
NORMALIZED = """
    h0 = MatMul(x, u0)
    a = Add(h0, x)
    n = LayerNormalization(a, scale)
    y = MatMul(n, u1)
"""
TAGGER = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    r0 = Relu(c0)
    c1 = Conv(r0, w1)
    y = Softmax<axis=1>(c1)
"""
HEADS = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    r0 = Relu(c0)
    boxes = Conv(r0, w1)
    scores = Conv(r0, w2)
    s = Sigmoid(scores)
    lengths = Softplus(boxes)
    k = Concat<axis=1>(lengths, s)
    y = Transpose(k)
"""
NORMALIZED_HEAD = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    n0 = LayerNormalization(c0, scale)
    c1 = Conv<pads=[1,1,1,1]>(n0, w1)
    y = LayerNormalization(c1, scale)
"""
TWO_WAYS = """
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    s = Softmax(c0)
    g = GlobalAveragePool(c0)
    f = Flatten(g)
    z = Gemm<transB=1>(f, v)
    p = ReduceSum(s)
    y = Add(z, p)
"""


def _constants() -> list[onnx.TensorProto]:
    rng = np.random.default_rng(0)
    arrays = {
        "w0": rng.normal(0, 0.4, (4, 4, 3, 3)),
        "w1": rng.normal(0, 0.3, (4, 4, 3, 3)),
        "w2": rng.normal(0, 0.3, (3, 4, 3, 3)),
        "w3": rng.normal(0, 0.3, (3, 8, 3, 3)),
        "half": rng.normal(0, 0.4, (4, 2, 3, 3)),
        "sizes": np.array([1, 1, 2, 2]),
        "v": rng.normal(0, 0.5, (3, 4)),
        "rows": rng.normal(0, 0.5, (3, 4 * 7 * 7)),
        "u0": rng.normal(0, 0.4, (8, 8)),
        "u1": rng.normal(0, 0.4, (8, 8)),
        "scale": np.ones(8),
        "p0": rng.normal(0, 0.5, (4, 4, 1, 1)),
        "low": np.array(0.0),
        "three": np.array(3.0),
        "top": np.array(6.0),
        "third": np.array(0.3),
        "six": np.array(1.5),
    }
    integers = {
        "begin": [0, 0],
        "end": [8, 8],
        "axes": [2, 3],
        "steps": [2, 2],
        "pads": [0, 1, 0, 0, 0, 1, 0, 0],
        "zero": [1],
        "four": [5],
        "one": [1],
        "around": [0, 0, 1, 1, 0, 0, 1, 1],
        "four4": [1, 4, 1, 1],
        "order": [3, 1, 2, 0],
    }
    return [
        *(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()),
        *(onnx.numpy_helper.from_array(np.array(a, np.int64), n) for n, a in integers.items()),
    ]


def _model(body: str, shape: tuple[int, ...] = (4, 8, 8)) -> onnx.ModelProto:
    sizes = ", ".join(map(str, shape))
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[n, {sizes}] x) => (y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(t for t in _constants() if t.name in used)
    return onnx.shape_inference.infer_shapes(model)


def _carried(model: ir.Model) -> set[str]:
    only = (INTEGER_KERNEL_BITS,)
    return {
        name for name, (_, spec) in quantizer_nodes(model).items() if spec.ladder.widths == only
    }


def _deploy(
    model: onnx.ModelProto, bits: int, exact: bool = False
) -> tuple[Mirror, ir.Model, dict]:
    """A calibrated mirror with all gates at a width, what is written, and the data."""
    gated = insert_gates(model, widths=(2, 4, 8), exact_steps=exact)
    mirror = Mirror(gated)
    shape = [dim.dim_value or 32 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    data = {"x": np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)}
    samples = open_data(data, prepare(model))
    for quantizer in mirror.quantizers.values():
        width = bits if bits in quantizer.spec.ladder.widths else INTEGER_KERNEL_BITS
        quantizer.set_gate(quantizer.gate_for(np.full(quantizer.spec.gate_shape, width)))
    calibrate(mirror, samples)
    return mirror, write_back(gated, mirror.plan()), data


@pytest.mark.parametrize(
    ("body", "carried"),
    [
        (RESIDUAL, {"c1"}),
        (SHORTCUT, {"c1", "a"}),
        (GATED, {"c0", "s0", "c1"}),
        (CLIPPED, set()),
        (SQUEEZED, {"c0", "k", "h", "s"}),
        (MOVED, set()),
        (HALVES, {"c0", "c1", "c2"}),
        (TWO_WAYS, {"c0"}),
        (TURNED, set()),
        (TURNED_FLOAT, {"c0.clamped"}),
    ],
    ids=[
        *("residual", "shortcut", "gated", "clipped", "squeezed", "moved", "halves", "two ways"),
        *("turned", "turned float"),
    ],
)
def test_activations_between_integer_kernels_get_carried_quantizers(body, carried) -> None:
    assert _carried(insert_gates(_model(body))) == carried
    assert _carried(insert_gates(_model(body), integer_kernels=False)) == set()
    assert _carried(insert_gates(_model(body), widths=(2, 4))) == set()


def test_activations_that_only_float_nodes_read_get_no_carried_quantizer() -> None:
    assert _carried(insert_gates(_model(NORMALIZED, (8,)))) == set()


def test_a_quantizer_behind_a_clamp_has_the_range_of_the_clamped_values() -> None:
    for body, names in ((TURNED, {"r0", "k1"}), (TURNED_FLOAT, {"c0.clamped"})):
        mirror, _, _ = _deploy(_model(body), 8)
        for name in names:
            assert mirror.quantizers[name].spec.form is GridForm.UNSIGNED
    plan = _deploy(_model(TURNED), 8)[0].plan()
    assert plan.tensors["k1"].high <= np.float32(1.5)


@pytest.mark.parametrize(
    ("body", "carried"),
    [(TAGGER, set()), (HEADS, set()), (NORMALIZED_HEAD, {"c0"})],
    ids=["tagger", "heads", "normalized"],
)
def test_results_that_go_on_in_floats_to_the_outputs_get_no_carried_quantizer(
    body, carried
) -> None:
    with collected_decisions() as decisions:
        gated = insert_gates(_model(body))
    assert _carried(gated) == carried
    results = {"c1", "boxes", "scores"} & {node.outputs[0].name for node in gated.graph}
    reason = "no integer kernel comes between it and the outputs of the model"
    assert {d.name for d in decisions if d.reason == reason} == results
    choices = predict_kernels(gated, dict.fromkeys(quantizer_nodes(gated), 8))
    why = {node.outputs[0].name: c.reason for node, c in choices.items() if c.reason}
    for result in results:
        assert why[result] == f"its output '{result}' stays float: {reason}"
    assert "c0" not in why


def test_what_looks_at_the_shape_of_a_value_reads_no_codes() -> None:
    model = ir.from_proto(_model("c = Conv(x, w0) s = Shape(c) e = Expand(three, s) y = Relu(e)"))
    (last,) = (node for node in model.graph if node.op_type == "Relu")
    found = {value.name for value in values_on_the_way_to({last}, model.graph)}
    assert found == {"e", "s", "three"}


@pytest.mark.parametrize("bits", [8, 2])
@pytest.mark.parametrize(
    ("body", "kernels"),
    [
        (RESIDUAL, {"QLinearAdd": 1, "QLinearConv": 2}),
        (SHORTCUT, {"QLinearAdd": 1, "QLinearConv": 2, "QLinearGlobalAveragePool": 1, "QGemm": 1}),
        (GATED, {"QLinearSigmoid": 1, "QLinearMul": 1, "QLinearConcat": 1, "QLinearConv": 2}),
        (CLIPPED, {"QLinearConv": 2}),
        (
            SQUEEZED,
            {"QLinearConv": 3, "QLinearAdd": 1, "QLinearMul": 2, "QLinearGlobalAveragePool": 1},
        ),
        (MOVED, {"QLinearConv": 2, "QuantizeLinear": 1, "Resize": 1, "Pad": 2, "Tile": 1}),
        (HALVES, {"QLinearConv": 3, "QLinearAdd": 1, "Split": 1}),
        (TURNED, {"QLinearConv": 2, "Conv": 0, "NhwcMaxPool": 1, "Relu": 0}),
    ],
    ids=["residual", "shortcut", "gated", "clipped", "squeezed", "moved", "halves", "turned"],
)
def test_onnxruntime_runs_the_nodes_between_in_integers(body, kernels, bits, tmp_path) -> None:
    _, written, _ = _deploy(_model(body), bits)
    found = Counter(optimized_operators(written, tmp_path))
    assert {name: found[name] for name in kernels} == kernels
    # The last Conv makes the graph's output, which is float: so is its kernel, which reads codes
    # through Cast, Relu or Sub, and Mul.
    floats = {"Add", "AveragePool", "Concat", "GlobalAveragePool", "Sigmoid"}
    assert not {*floats, "Div", "HardSigmoid"} & set(found)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 2])
@pytest.mark.parametrize(
    "body", [RESIDUAL, SHORTCUT, GATED, CLIPPED, SQUEEZED, MOVED, HALVES, TURNED]
)
def test_written_file_without_optimizations_equals_the_mirror(body, bits) -> None:
    mirror, written, data = _deploy(_model(body), bits)
    session = open_session(written, optimize=False)
    (got,) = session.run(["y"], data)
    import torch

    with torch.no_grad():
        wanted = mirror({"x": torch.from_numpy(data["x"])})["y"].numpy()
    # Sums of another order may move a value across the rounding of the next grid.
    close = np.isclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert close.mean() > 0.99


def test_a_constant_factor_becomes_part_of_the_scale(tmp_path) -> None:
    mirror, written, data = _deploy(_model(SCALED, (4, 8)), 8)
    kernels = Counter(optimized_operators(written, tmp_path))
    # Transpose moves codes, and the products give codes at once.
    assert kernels == {
        "QuantizeLinear": 1,
        "QLinearMatMul": 2,
        "Transpose": 1,
        "MatMulIntegerToFloat": 1,
        "Softmax": 1,
    }
    import torch

    got = open_session(written, optimize=False).run(["y"], data)[0]
    with torch.no_grad():
        wanted = mirror({"x": torch.from_numpy(data["x"])})["y"].numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_an_output_of_the_graph_gets_no_carried_quantizer() -> None:
    body = RESIDUAL.replace("y = Conv(r1, w2)", "z = Conv(r1, w2) y = Relu(z)")
    gated = insert_gates(_model(body))
    assert _carried(gated) == {"c1"}
    assert gated.graph.outputs[0].producer().op_type == "Relu"


def test_hard_sigmoids_with_exact_steps_have_equal_codes_in_floats_and_integers() -> None:
    body = SQUEEZED.replace("g = Glo", "y = Conv(h, w2) g = Glo").split("g = ")[0]
    _, written, data = _deploy(_model(body), 8, exact=True)
    outputs = [open_session(written, optimize=o).run(None, data)[0] for o in (True, False)]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
    ("body", "settings", "carried"),
    [
        (RESIDUAL, {"keep_float": ["c1"]}, set()),
        (RESIDUAL, {"fix": {"c1": 32}}, set()),
        (GATED, {"keep_float": ["s0"]}, {"c0", "c1"}),
        (GATED, {"keep_float": ["s0", "c0"]}, {"c1"}),
        (TAGGER, {"keep_float": ["c1"]}, set()),  # as it is anyway
        (TAGGER, {"fix": {"c1": 8}}, {"c1"}),  # the user wants the kernel
        # No integer kernel has weights of 16 and more bits, so none needs a quantizer behind it.
        (RESIDUAL, {"keep_float": ["w1"]}, set()),
        (RESIDUAL, {"fix": {"w1": 16}}, set()),
        (RESIDUAL, {"keep_float": ["r0"]}, set()),
    ],
)
def test_the_user_chooses_where_quantizers_are_carried(body, settings, carried) -> None:
    gated = insert_gates(_model(body), target="generic", **settings)
    assert _carried(gated) == carried
    widths = draw_widths(gated, np.random.default_rng(2))
    written = write(gated, make_plan(gated, widths), compact=False)
    keys = {node.name: node_key(node) for node in written.model.graph}
    executed = executed_operators(written.model)
    for name, choice in written.kernels.items():
        runs = executed.get(keys[name], "")  # float operators may be fused into others
        assert computes_on_codes(runs) == (choice.kernel is Kernel.INTEGER), (name, choice)


@pytest.mark.parametrize(
    ("settings", "widths"),
    [({"fix": {"c1": 4}}, (4,)), ({"widths_for": {"c1": (4, 16)}}, (4, 16))],
)
def test_the_user_chooses_widths_of_carried_quantizers(settings, widths) -> None:
    gated = insert_gates(_model(RESIDUAL), target="generic", **settings)
    assert quantizer_nodes(gated)["c1"][1].ladder.widths == widths


@pytest.mark.parametrize(
    "settings",
    [
        {"keep_float": ["c9"]},
        {"keep_float": ["c0"]},  # behind it is a Relu, and r0 has the quantizer
        {"keep_float": ["c1"], "integer_kernels": False},
    ],
)
def test_a_name_without_a_quantizer_is_an_error(settings) -> None:
    with pytest.raises(ConfigError, match="matches no tensor, node or operator"):
        insert_gates(_model(RESIDUAL), **settings)


def test_a_node_that_the_user_keeps_float_reads_the_float_result_of_a_kernel() -> None:
    body = RESIDUAL.replace("a = Add(c1, r0)", "d1 = Conv<pads=[1,1,1,1]>(r0, w1) a = Add(c1, d1)")
    gated = insert_gates(_model(body), keep_float=["Conv_d1"])
    reads = {node.outputs[0].name: node.inputs[0].name for node in gated.graph}
    assert (reads["c1"], reads["d1"]) == ("r0.quantized", "r0")
    assert _carried(gated) == set()
