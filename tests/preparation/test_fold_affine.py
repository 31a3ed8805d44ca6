from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.preparation.fold_affine import fold_affine


def build(text: str, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """A model from its text, with random weights of the given shapes (none is near zero)."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        array = rng.uniform(0.3, 1.3, size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})


def folded(proto: onnx.ModelProto) -> list[str]:
    """The operators after folding. Outputs must not change, and a second run changes nothing."""
    model = load_model(proto)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"n{index}"
    fold_affine(model)
    once = [node.op_type for node in model.graph]
    fold_affine(model)
    assert [node.op_type for node in model.graph] == once

    after = ir.serde.serialize_model(model)
    onnx.checker.check_model(after, full_check=True)
    assert [value.name for value in after.graph.output] == [o.name for o in proto.graph.output]
    shape = [d.dim_value or 2 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for old, new in zip(run(proto, x), run(after, x), strict=True):
        np.testing.assert_allclose(new, old, rtol=2e-5, atol=2e-5)
    return once


BATCH_NORM = dict.fromkeys(("g", "b", "m", "v"), (4,))


@pytest.mark.parametrize(
    ("mac", "weight"),
    [
        ("Conv(x, w)", (4, 3, 3, 3)),
        ("Conv(x, w, c)", (4, 3, 3, 3)),
        ("Conv <group = 3> (x, w)", (6, 1, 3, 3)),
        ("ConvTranspose(x, w)", (3, 4, 3, 3)),
        ("ConvTranspose <group = 3> (x, w)", (3, 2, 3, 3)),
    ],
)
def test_batch_norm_folds_into_convolutions(mac: str, weight: tuple[int, ...]) -> None:
    channels = {(4, 3, 3, 3): 4, (6, 1, 3, 3): 6, (3, 4, 3, 3): 4, (3, 2, 3, 3): 6}[weight]
    shapes = dict.fromkeys("gbmvc", (channels,))
    model = build(
        f"(float[2,3,5,5] x) => (float[] y) {{ h = {mac} y = BatchNormalization(h, g, b, m, v) }}",
        w=weight,
        **shapes,
    )
    assert folded(model) == [mac.split("(")[0].split(" ")[0]]


@pytest.mark.parametrize(
    "mac",
    [
        "Gemm(x, w)",
        "Gemm <alpha = 0.5, beta = 2.0> (x, w, c)",
        "Gemm <transB = 1> (x, t, c)",
        "Gemm(x, w, r)",
        "Gemm(x, w, s)",
        "MatMul(x, w)",
    ],
)
def test_batch_norm_folds_into_matrix_products(mac: str) -> None:
    model = build(
        f"(float[2,3] x) => (float[] y) {{ h = {mac} y = BatchNormalization(h, g, b, m, v) }}",
        w=(3, 4),
        t=(4, 3),
        c=(4,),
        r=(2, 1),
        s=(),
        **BATCH_NORM,
    )
    assert folded(model) == ["Gemm"]


def test_bias_adds_and_learned_factors_fold_into_conv() -> None:
    model = build(
        "(float[2,3,5,5] x) => (float[] y) { a = Conv(x, w) b = Add(a, channel) c = Mul(scalar, b) "
        "d = Sub(shift, c) e = Div(d, scalar) y = Sub(e, channel) }",
        w=(4, 3, 3, 3),
        channel=(1, 4, 1, 1),
        scalar=(1,),
        shift=(4, 1, 1),
    )
    assert folded(model) == ["Conv"]


@pytest.mark.parametrize(
    ("constant", "folds"),
    [((4,), True), ((1, 1, 4), True), ((), True), ((3, 1), False), ((1, 1, 1, 4), False)],
)
def test_factors_fold_into_matmul_only_along_its_last_axis(
    constant: tuple[int, ...], folds: bool
) -> None:
    model = build(
        "(float[2,3,5] x) => (float[] y) { h = MatMul(x, w) y = Mul(h, c) }", w=(5, 4), c=constant
    )
    assert folded(model) == (["MatMul"] if folds else ["MatMul", "Mul"])


def test_a_bias_does_not_fold_into_matmul_of_three_axes() -> None:
    text = "(float[2,3,5] x) => (float[] y) { h = MatMul(x, w) y = Add(h, c) }"
    assert folded(build(text, w=(5, 4), c=(4,))) == ["MatMul", "Add"]


def test_shared_weights_are_copied_before_folding() -> None:
    model = build(
        "(float[2,4,5,5] x) => (float[] y) { h = Conv(x, w) i = BatchNormalization(h, g, b, m, v) "
        "j = Conv(i, w) k = Mul(j, g2) y = Conv(k, w) }",
        w=(4, 4, 1, 1),
        g2=(1, 4, 1, 1),
        **BATCH_NORM,
    )
    assert folded(model) == ["Conv", "Conv", "Conv"]


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Conv(x, w) a = Add(h, c) y = Mul(h, a)",  # the value is read twice
        "h = Conv(x, w) y = Add(h, pixels)",
        "h = Conv(x, w) y = Div(c, h)",
        "h = Conv(x, w) y = Add(h, h)",
        "w2 = Mul(x, c) h = Conv(x, w) y = Add(h, w2)",
        "h = Conv(x, w, dynamic) y = Add(h, c)",
        "h = Relu(x) y = Add(h, c)",
        "h = Conv(x, one) y = Add(h, c)",  # broadcasting makes more channels of one
    ],
)
def test_nodes_that_are_no_affine_map_of_channels_are_not_folded(nodes: str) -> None:
    model = build(
        "(float[2,4,1,1] x) => (float[] y) <int64[1] zero = {0}> "
        f"{{ first = Flatten(x) dynamic = ReduceMax <keepdims = 0> (first, zero) {nodes} }}",
        w=(4, 4, 1, 1),
        c=(1, 4, 1, 1),
        pixels=(4, 1, 2),
        one=(1, 4, 1, 1),
    )
    before = [node.op_type for node in model.graph.node]
    assert folded(model) == before


def test_nodes_after_a_graph_output_are_not_folded() -> None:
    text = "(float[2,3] x) => (float[] h, float[] y) { h = Gemm(x, w) y = Add(h, c) }"
    assert folded(build(text, w=(3, 4), c=(4,))) == ["Gemm", "Add"]


def test_batch_norm_in_training_mode_is_not_folded() -> None:
    model = build(
        "(float[2,3] x) => (float[] y) { h = Gemm(x, w) "
        "y, m2, v2 = BatchNormalization <training_mode = 1> (h, g, b, m, v) }",
        w=(3, 4),
        **BATCH_NORM,
    )
    assert folded(model) == ["Gemm", "BatchNormalization"]


def test_factors_that_are_not_finite_are_not_folded() -> None:
    text = "(float[2,3] x) => (float[] y) <float zero = {0}> { h = Gemm(x, w) y = Div(h, zero) }"
    model = build(text, w=(3, 4))
    graph = load_model(model)
    fold_affine(graph)
    assert [node.op_type for node in graph.graph] == ["Gemm", "Div"]


@pytest.mark.parametrize(
    ("mac", "weight", "shape"),
    [("Conv(x, w, c)", (4, 3, 3, 3), "2,3,5,5"), ("Gemm(x, w, c)", (3, 4), "2,3")],
)
def test_hard_sigmoid_folds_and_leaves_a_clip(
    mac: str, weight: tuple[int, ...], shape: str
) -> None:
    text = f"(float[{shape}] x) => (float[] y) {{ h = {mac} y = HardSigmoid<alpha = 0.1>(h) }}"
    found = folded(build(text, w=weight, c=(4,)))
    assert [name for name in found if name != "Constant"] == [mac.split("(")[0], "Clip"]


def test_hard_sigmoid_of_a_value_with_other_readers_is_not_folded() -> None:
    text = "(float[2,3,5,5] x) => (float[] y) { h = Conv(x, w) s = HardSigmoid(h) y = Mul(h, s) }"
    assert folded(build(text, w=(4, 3, 3, 3))) == ["Conv", "HardSigmoid", "Mul"]
