from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, parser

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.ort.capabilities import newest_opset
from onnx_cgmq.preparation.opset import convert
from onnx_cgmq.preparation.upgrade import UPGRADED_TO, upgrade

IR_VERSIONS = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 17: 8, 16: 8, 19: 9}


def model_of(opset: int, text: str) -> onnx.ModelProto:
    imports = f'"" : {opset}, "com.microsoft" : 1'
    head = f"<ir_version: {IR_VERSIONS[opset]}, opset_import: [{imports}]> g "
    return parser.parse_model(head + text)


def feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Random inputs, where truth values are true, ``v`` is positive, and unknown sizes are 2."""
    rng = np.random.default_rng(0)
    found = {}
    for value in model.graph.input:
        dtype = value.type.tensor_type.elem_type
        shape = [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32)
        array = np.abs(array) if value.name == "v" else array
        found[value.name] = np.array(True) if dtype == TensorProto.BOOL else array
    return found


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds(model))


CASES = [
    (
        11,
        "(float[1,3] x, bool c) => (float[n] y) { y = If(c)<then_branch = t () => "
        "(float[n] a) { a = Squeeze<axes=[0]>(x) }, else_branch = e () => (float[n] b) { "
        "z = Neg(x) b = Squeeze<axes=[0]>(z) }> }",
    ),
    (11, "(float[2,3,4] x) => (float[2,3,4] y) { y = Softmax<axis=1>(x) }"),
    (11, "(float[n,3,m] x) => (float[n,3,m] y) { y = Softmax<axis=1>(x) }"),
    (11, "(float[2,3,4] x) => (float[2,3,4] y) { y = Softmax(x) }"),
    (
        7,
        "(float[1,2,3,4] x) => (float[1,2,6,8] y) { y = "
        'Upsample<scales=[1.0,1.0,2.0,2.0],mode="linear">(x) }',
    ),
    (
        9,
        "(float[1,2,3,4] x) => (float[1,2,6,8] y) <float[4] s = {1.0,1.0,2.0,2.0}> { y = "
        'Upsample<mode="nearest">(x,s) }',
    ),
    (
        10,
        "(float[1,2,3,4] x) => (float[1,2,6,8] y) <float[4] s = {1.0,1.0,2.0,2.0}> { y = "
        'Resize<mode="linear">(x,s) }',
    ),
    (9, "(float[5,4] x) => (float[2,4] y) { y = Slice<starts=[1],ends=[3]>(x) }"),
    (9, "(float[5,4] x) => (float[5,2] y, int64[5,2] i) { y,i = TopK<k=2>(x) }"),
    (
        10,
        "(float[5,4] x) => (float[5,2] y, int64[5,2] i) <int64[1] k={2}> { y,i = TopK(x,k) }",
    ),
    (10, "(float[5,4] x) => (float[5,4] y) { y = Clip<min=-0.5,max=0.5>(x) }"),
    (10, "(float[5,4] x) => (float[5,4] y) { y = Clip<min=-0.5>(x) }"),
    (10, "(float[5,4] x) => (float[5,4] y) { y = Clip<max=0.5>(x) }"),
    (10, "(float[5,4] x) => (float[7,5] y) { y = Pad<pads=[1,0,1,1],value=2.0>(x) }"),
    (
        7,
        "(float[2,3,4,4] x, float[3] s, float[3] b, float[3] m, float[3] v) => "
        "(float[2,3,4,4] y) { y = BatchNormalization<epsilon=0.1>(x,s,b,m,v) }",
    ),
    (
        8,
        "(float[2,3,4,4] x, float[3] s, float[3] b, float[3] m, float[3] v) => "
        "(float[2,3,4,4] y) { y = BatchNormalization(x,s,b,m,v) }",
    ),
    (7, "(float[2,3] x) => (float[2,3] y) { y = Dropout<ratio=0.5>(x) }"),
    (11, "(float[2,3] x) => (float[1,2,3] y) { y = Unsqueeze<axes=[0]>(x) }"),
    (11, "(float[2,3] x) => (float[2] y) { y = ReduceSum<axes=[-1],keepdims=0>(x) }"),
    (11, "(float[2,3] x) => (float[2] y) { y = ReduceMean<axes=[-1],keepdims=0>(x) }"),
    (17, "(float[2,3] x) => (float[2] y) { y = ReduceMax<axes=[-1],keepdims=0>(x) }"),
    (17, "(float[2,3] x) => (float[2] y) { y = ReduceL2<axes=[-1],keepdims=0>(x) }"),
    (9, "(float[2,3] x) => (float[2] y) { y = ReduceLogSumExp<axes=[1],keepdims=0>(x) }"),
    (
        11,
        "(float[2,3] x) => (float[2,1] y, float[2,2] z) { y,z = Split<axis=1,split=[1,2]>(x) }",
    ),
    (11, "(float[2,4] x) => (float[2,2] y, float[2,2] z) { y,z = Split<axis=1>(x) }"),
    (17, "(float[2,4] x) => (float[2,2] y, float[2,2] z) { y,z = Split<axis=1>(x) }"),
    (
        9,
        "(float[3,3] x, float[1,3] u) => (float[3,3] y) <int64[1,3] i={0,1,2}> { y = "
        "Scatter<axis=0>(x,i,u) }",
    ),
    (9, "(float[3,3] x) => (int64[3,1] y) { y = ArgMax<axis=1>(x) }"),
    (
        7,
        "(float[1,1,5,5] x) => (float[1,1,3,3] y) { y = AveragePool<kernel_shape=[3,3]>(x) }",
    ),
    (7, "(float[2,3] x, float[3,4] w, float[4] b) => (float[2,4] y) { y = Gemm(x,w,b) }"),
    (8, "(float[2,3] x) => (int64[2,3] y) { y = Cast<to=7>(x) }"),
    (
        7,
        "(float[2,3,4] x, float[1,8,4] w, float[1,8,2] r) => (float[2,1,3,2] y) { y = "
        "LSTM<hidden_size=2>(x,w,r) }",
    ),
    (7, "(float[1,1,5,5] x) => (float[1,1,3,3] y) { y = MaxPool<kernel_shape=[3,3]>(x) }"),
    (7, "(float[1,2,5,5] x, float[2,1,1] s) => (float[1,2,5,5] y) { y = PRelu(x,s) }"),
    (
        16,
        "(float[1,2,5,5] x, float[1,3,3,2] s) => (float[1,2,3,3] y) { y = "
        'GridSample<mode="bicubic">(x,s) }',
    ),
    (
        16,
        "(float[1,2,5,5] x, float[1,3,3,2] s) => (float[1,2,3,3] y) { y = GridSample(x,s) }",
    ),
    (11, "(float[2,3,4] x) => (float[2,3,4] y) { y = Hardmax(x) }"),
    (11, "(float[2,3,4] x) => (float[2,3,4] y) { y = LogSoftmax(x) }"),
    (
        7,
        "(float[1,2,5,5] x, float[2] s, float[2] b) => (float[1,2,5,5] y) { y = "
        "InstanceNormalization(x,s,b) }",
    ),
    (
        11,
        "(float[1,2,3,4] x) => (float[1,2,6,8] y) <float[0] r={}, float[4] s = "
        "{1.0,1.0,2.0,2.0}> { y = "
        'Resize<mode="cubic",coordinate_transformation_mode="align_corners">(x,r,s) }',
    ),
    (
        10,
        "(float[1,6,4] b, float[1,1,6] s) => (int64[n,3] y) <int64[1] k={3}> { y = "
        "NonMaxSuppression(b,s,k) }",
    ),
    (
        11,
        "(float[1,3] x) => (float[3] y) <int64 M={3}, bool c={1}, float[3] "
        "z={0.0,0.0,0.0}> { y = Loop(M,c,z)<body = b (int64 i, bool ci, float[3] s) => "
        "(bool co, float[3] so) { co = Identity(ci) q = Squeeze<axes=[0]>(x) so = "
        "Add(s,q) }> }",
    ),
    (11, "(float[2,3] x) => (float[2,3] y) <int64 a={1}> { y = CumSum(x,a) }"),
    (
        10,
        "(float[1,1,6,6] x) => (float[1,1,a,b] y) { y = "
        "AveragePool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1],ceil_mode=1,"
        "count_include_pad=1>(x) }",
    ),
    (
        10,
        "(float[1,1,6,6] x, float[2,4] r) => (float[2,1,2,2] y) <int64[2] b={0,0}> { y = "
        "RoiAlign<output_height=2,output_width=2>(x,r,b) }",
    ),
    (17, "(float[1,8,1] x) => (float[1,5,2] y) { y = DFT<axis=1,onesided=1>(x) }"),
]


@pytest.mark.parametrize(("opset", "text"), CASES)
def test_upgraded_models_compute_the_same_values_and_types(opset: int, text: str) -> None:
    model = model_of(opset, text)
    graph = load_model(model)
    upgrade(graph)
    assert graph.opset_imports[""] >= UPGRADED_TO
    onnx.checker.check_model(ir.serde.serialize_model(graph), full_check=True)
    convert(graph)
    upgraded = ir.serde.serialize_model(graph)
    onnx.checker.check_model(upgraded, full_check=True)

    for before, after in zip(run(model), run(upgraded), strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_models_of_newer_opsets_are_not_changed() -> None:
    model = model_of(19, "(float[2,4] x) => (float[2,2] y) { y, z = Split <num_outputs = 2> (x) }")
    graph = load_model(model)
    upgrade(graph)
    after = ir.serde.serialize_model(graph)
    assert after == ir.serde.serialize_model(load_model(model))


@pytest.mark.parametrize(
    ("opset", "text", "reason"),
    [
        (
            10,
            "(float[1,1,4,4] x) => (float[1,1,6,2] y) <float[4] s = {1.0, 1.0, 1.5, 0.5}> "
            "{ y = Resize(x, s) }",
            "only known for constant scales that all enlarge or all shrink",
        ),
        (9, "(float[2] x) => (float[2] y, float[2] m) { y, m = Dropout(x) }", "its mask is used"),
        (
            8,
            "(float[1,2] i, float[1,3,2] x) => (float[1,2] y) { y = Scan <num_scan_inputs = 1, "
            'body = b (float[2] s, float[2] e) => (float[2] o) { o = Add(s, e) }> ("", i, x) }',
            "it runs over a batch",
        ),
        (
            8,
            "(float[2,3] x, float[3] s) => (float[2,3] y) "
            "{ y = BatchNormalization <spatial = 0> (x, s, s, s, s) }",
            "statistics are per element",
        ),
        (
            8,
            "(float[2,3] x, float[3] s) => (float[2,3] y, float[3] m) "
            "{ y, m, v, a, b = BatchNormalization (x, s, s, s, s) }",
            "training mode",
        ),
    ],
)
def test_nodes_that_the_new_opset_can_not_express_are_refused(
    opset: int, text: str, reason: str
) -> None:
    model = model_of(opset, text)
    model.graph.node[0].name = "it"
    with pytest.raises(ModelError, match=rf"'it' .* opset 18: .*{reason}.*; export"):
        upgrade(load_model(model))


def test_opsets_that_broadcast_by_attributes_are_refused() -> None:
    graph = load_model(model_of(7, "(float[2] x) => (float[2] y) { y = Relu(x) }"))
    graph.opset_imports[""] = 6
    with pytest.raises(ModelError, match=r"opset 6; opsets before 7 are not read"):
        upgrade(graph)


def test_operators_of_other_domains_are_not_changed() -> None:
    text = (
        "(float[1,3] x) => (float[3] y) { a = com.microsoft.Gelu(x) y = Squeeze <axes = [0]> (a) }"
    )
    model = model_of(11, text)
    graph = load_model(model)
    upgrade(graph)
    convert(graph)
    assert graph.opset_imports == {"": newest_opset(), "com.microsoft": 1}
    np.testing.assert_allclose(run(ir.serde.serialize_model(graph))[0], run(model)[0], rtol=1e-6)


def test_functions_of_another_opset_can_be_inlined_afterwards() -> None:
    body = [helper.make_node("Squeeze", ["a"], ["b"], axes=[0])]
    function = helper.make_function("mine", "F", ["a"], ["b"], body, [helper.make_opsetid("", 11)])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    graph = helper.make_graph([helper.make_node("F", ["x"], ["y"], domain="mine")], "g", [x], [y])
    imports = [helper.make_opsetid("", 19), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=9)
    loaded = load_model(model)
    upgrade(loaded)
    assert {f.opset_imports[""] for f in loaded.functions.values()} == {19}
    convert(loaded)
    assert [node.op_type for node in loaded.graph] == ["Constant", "Squeeze"]
