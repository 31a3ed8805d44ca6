"""Kernels predicted from the gated graph are those that onnxruntime runs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel, narrowest_widths, predict_kernels
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.nodes import node_key
from onnx_cgmq.graph.operators import computes_on_codes
from onnx_cgmq.ort.executed import executed_operators
from onnx_cgmq.writing.write_back import write
from tests.support.plans import draw_widths, make_plan

NO_KERNEL = "onnxruntime's CPU provider has no integer kernel for"
AS_SECOND = "but integer kernels take it as the second"
IMAGE = "float[n, 4, 8, 8] x"
ROWS = "float[n, 6, 8] x"
CASES = {
    "chain": (IMAGE, "c = Conv(x, k) r = Relu(c) y = Conv(r, k2)"),
    "residual": (IMAGE, "c = Conv<pads=[1,1,1,1]>(x, k) a = Add(c, x) y = Conv(a, k2)"),
    "two readers": (IMAGE, "c = Conv(x, k) s = Softmax(c) d = Conv(c, k2) y = Conv(d, k3)"),
    "transposed": (IMAGE, "c = Conv(x, k) t = ConvTranspose(c, k) y = Conv(t, k2)"),
    "pooled": (
        IMAGE,
        "c = Conv(x, k) p = AveragePool<kernel_shape=[2,2]>(c) f = Flatten(p) y = MatMul(f, m)",
    ),
    "split": (
        IMAGE,
        "c = Conv(x, k) p, q = Split<axis=1, num_outputs=2>(c) a = Conv(p, k4) b = Conv(q, k4) "
        "y = Concat<axis=1>(a, b)",
    ),
    "padded": (IMAGE, "c = Conv(x, k) p = Pad(c, pads) y = Conv(p, k2)"),
    "rows": (ROWS, "h = MatMul(x, w) n = LayerNormalization(h, ones) y = MatMul(n, w)"),
    "weight first": (ROWS, "h = MatMul(v, x) y = MatMul(h, w)"),
    "weight of rank 3": (ROWS, "h = MatMul(x, u) y = MatMul(h, w)"),
    "two activations": (ROWS, "t = Transpose<perm=[0,2,1]>(x) h = MatMul(x, t) y = MatMul(h, v2)"),
    "scores": (
        ROWS,
        "q = MatMul(x, w) s = Mul(q, third) t = Transpose<perm=[0,2,1]>(x) h = MatMul(s, t) "
        "y = MatMul(h, v2)",
    ),
    "tied head": (
        "int64[n, 6] ids",
        "e = Gather(w, ids) h = MatMul(e, v3) t = Transpose<perm=[1,0]>(w) y = MatMul(h, t)",
    ),
    "tied Gemm": (
        "float[n, 8] x",
        "h = MatMul(x, w) r = Relu(h) t = Transpose(w) y = Gemm(r, t, ones)",
    ),
    "tied Conv": (
        IMAGE,
        "c = Conv(x, k) t = Transpose<perm=[1,0,2,3]>(k) d = Conv(c, t) y = Conv(d, k3)",
    ),
    "transposed as first factor": (
        ROWS,
        "h = MatMul(x, v3) t = Transpose(v3) g = Transpose<perm=[0,2,1]>(h) y = MatMul(t, g)",
    ),
    "shape of a product": (
        ROWS,
        "q = MatMul(x, w) t = Transpose<perm=[0,2,1]>(x) s = MatMul(q, t) p = Softmax(s) "
        "c = MatMul(p, x) d = Shape(c) o = MatMul(c, w) y = Reshape(o, d)",
    ),
    "sizes on the way": (
        IMAGE,
        "c = Conv(x, k) a = Size(c) r = Relu(c) b = Size(r) p = MaxPool<kernel_shape=[2,2]>(r) "
        "s = Size(p) d = Conv(p, k2) e = Conv(d, k3) l = Add(a, b) n = Add(l, s) f = Cast<to=1>(n) "
        "y = Mul(e, f)",
    ),
    "also an output": (ROWS, "y = MatMul(x, w) z = MatMul(y, w)"),
    "scaled": ("float[8, 8] x", "h = Gemm<alpha=0.5>(x, x) y = Gemm(h, w)"),
    "einsum": (ROWS, 'h = Einsum<equation="nab,bc->nac">(x, w) y = MatMul(h, w)'),
}


def model_of(case: str) -> onnx.ModelProto:
    inputs, body = CASES[case]
    rng = np.random.default_rng(0)
    shapes = {
        "k": (4, 4, 3, 3),
        "k2": (4, 4, 2, 2),
        "k3": (4, 4, 1, 1),
        "k4": (3, 2, 2, 2),
        "m": (100, 5),
        "w": (8, 8),
        "u": (1, 8, 8),
        "v": (6, 6),
        "v3": (8, 8),
        "v2": (6, 6),
        "ones": (8,),
    }
    outputs = "y, z" if case == "also an output" else "y"
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    used = {name for node in model.graph.node for name in node.input}
    arrays = {n: rng.normal(0, 0.3, s).astype(np.float32) for n, s in shapes.items() if n in used}
    if "third" in used:
        arrays["third"] = np.float32(0.3)
    if "pads" in used:
        arrays["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(array), name) for name, array in arrays.items()
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{index}"
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_runs_what_is_predicted(case, granularity) -> None:
    gated = insert_gates(
        model_of(case), widths=(2, 4, 8), granularity=granularity, target="generic"
    )
    plan = make_plan(gated, draw_widths(gated, np.random.default_rng(1)))
    written = write(gated, plan, compact=False)
    keys = {node.name: node_key(node) for node in written.model.graph}
    executed = executed_operators(written.model)
    assert written.kernels
    for name, choice in written.kernels.items():
        runs = executed[keys[name]]
        assert computes_on_codes(runs) == (choice.kernel is Kernel.INTEGER), (name, choice)


def _reasons(case: str, widths: dict[str, int] | None = None, **settings) -> dict[str, str]:
    gated = insert_gates(model_of(case), **settings, target="generic")
    chosen = dict.fromkeys(quantizer_nodes(gated), 8) | (widths or {})
    choices = predict_kernels(gated, chosen)
    for choice in choices.values():
        assert (choice.reason == "") is (choice.kernel is Kernel.INTEGER)
    return {node.name: choice.reason for node, choice in choices.items() if choice.reason}


@pytest.mark.parametrize(
    ("case", "reasons"),
    [
        ("rows", {}),
        ("chain", {"Conv2": "its output is an output of the model, 'y'"}),
        (
            "weight first",
            {"MatMul0": f"weight 'v' is the first factor, {AS_SECOND}"},
        ),
        (
            "also an output",
            {"MatMul0": "its output is also an output of the model, 'y'"},
        ),
        ("tied head", {}),
        ("shape of a product", {}),
        (
            "transposed as first factor",
            {"MatMul3": f"weight 'v3' is the first factor, {AS_SECOND}"},
        ),
        (
            "scaled",
            {"Gemm0": f"{NO_KERNEL} Gemm with alpha or beta"},
        ),
    ],
)
def test_reasons_for_float_kernels(case, reasons) -> None:
    assert _reasons(case) == reasons


def test_the_reason_names_the_tensor_that_is_too_wide() -> None:
    reasons = _reasons("rows", {"w": 16})
    text = "weight 'w' has 16 bits, but integer kernels take at most 8"
    assert reasons == {"MatMul0": text, "MatMul2": text}
    assert _reasons("rows", {"x": 32})["MatMul0"].startswith("activation 'x' has 32 bits")


def test_nodes_that_read_activations_with_many_gates_are_float() -> None:
    reasons = _reasons("rows", activation_granularity="channel")
    assert reasons["MatMul0"] == "activation 'x' has a width for each channel, not one width"


def test_weights_of_rank_3_with_a_step_for_each_channel_are_float() -> None:
    reason = "weight 'u' has a step for each channel and 3 dimensions, not 2"
    channels = {"granularity": "channel", "activation_granularity": "tensor"}
    assert _reasons("weight of rank 3", **channels) == {"MatMul0": reason}
    assert _reasons("weight of rank 3") == {}


def test_nodes_that_are_float_at_any_width_are_predicted_before_learning() -> None:
    gated = insert_gates(model_of("rows"), keep_float=["w"], target="generic")
    assert narrowest_widths(gated)["w"] == 32
    choices = predict_kernels(gated, narrowest_widths(gated))
    assert {choice.kernel for choice in choices.values()} == {Kernel.FLOAT}


def test_nodes_in_subgraphs_are_float() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[n, 2] x, bool c) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}> {
            [outer] h = MatMul (x, w)
            [choice] y = If (c) <
                then_branch = t () => (float[n, 2] a) { [inner] a = MatMul (h, w) },
                else_branch = e () => (float[n, 2] b) { [other] b = Identity (h) }
            >
        }"""
    )
    gated = insert_gates(model, target="generic")
    choices = predict_kernels(gated, narrowest_widths(gated))
    reasons = {node.name: choice.reason for node, choice in choices.items()}
    assert reasons == {"outer": "", "inner": "it is inside a subgraph, which has no quantizers"}
