from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.ort.capabilities import newest_opset
from onnx_cgmq.preparation.decompose import DOMAIN, decompose

IMPORTS = [helper.make_opsetid("", newest_opset()), helper.make_opsetid(DOMAIN, 1)]


def build(
    op: str,
    x: tuple[int, ...],
    weights: dict[str, np.ndarray],
    inputs: list[str],
    outputs: int = 1,
    **attributes: object,
) -> onnx.ModelProto:
    names = ["y", *(f"y{i}" for i in range(1, outputs))]
    domain = "" if op == "SimplifiedLayerNormalization" else DOMAIN
    node = helper.make_node(op, inputs, names, name="it", domain=domain, **attributes)
    kept = [name for name in names if name in ("y", "y3")]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in kept],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=IMPORTS, ir_version=10)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})


def check(proto: onnx.ModelProto) -> list[str]:
    """The standard operators that replace the node; they must compute the same in onnxruntime."""
    model = ir.serde.deserialize_model(proto)
    assert decompose(model)
    infer_shapes(model)
    assert not decompose(model)
    assert {node.domain for node in model.graph} == {""}
    assert all(value.shape is not None for node in model.graph for value in node.outputs[:1])
    after = ir.serde.serialize_model(model)
    onnx.checker.check_model(after, full_check=True)
    assert [o.name for o in after.graph.output] == [o.name for o in proto.graph.output]
    x = normal(*(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim))
    for old, new in zip(run(proto, x), run(after, x), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in model.graph if node.op_type != "Constant"]


@pytest.mark.parametrize(
    ("activation", "numbers"),
    [
        ("Relu", []),
        ("LeakyRelu", [0.2]),
        ("HardSigmoid", [0.3, 0.4]),
        ("HardSwish", []),
        ("Clip", [-0.1, 0.5]),
    ],
)
@pytest.mark.parametrize("added", [False, True])
def test_fused_conv_becomes_standard_operators(
    activation: str, numbers: list[float], added: bool
) -> None:
    weights = {"w": normal(4, 3, 3, 3), "b": normal(4), "z": normal(2, 4, 5, 5)}
    inputs = ["x", "w", "b", *(["z"] if added else [])]
    settings = {"activation_params": numbers} if numbers else {}
    model = build(
        "FusedConv", (2, 3, 5, 5), weights, inputs, activation=activation, pads=[1] * 4, **settings
    )
    assert check(model) == ["Conv", *(["Add"] if added else []), activation]


@pytest.mark.parametrize(
    ("activation", "numbers"),
    [
        ("Relu", {}),
        ("LeakyRelu", {"activation_alpha": 0.3}),
        ("Sigmoid", {}),
        ("Softplus", {}),
        ("Selu", {"activation_alpha": 1.5, "activation_gamma": 1.1}),
    ],
)
def test_fused_gemm_becomes_standard_operators(activation: str, numbers: dict[str, float]) -> None:
    weights = {"w": normal(4, 3), "c": normal(4)}
    settings = {"transB": 1, "alpha": 0.5, "activation": activation, **numbers}
    model = build("FusedGemm", (2, 3), weights, ["x", "w", "c"], **settings)
    assert check(model) == ["Gemm", activation]


@pytest.mark.parametrize(
    ("x", "w", "settings"),
    [
        ((2, 3), (3, 4), {"alpha": 0.5}),
        ((3, 2), (3, 4), {"transA": 1}),
        ((2, 5, 3), (4, 3), {"transB": 1, "alpha": 2.0}),
        ((5, 2, 6, 3), (2, 6, 3, 4), {"transBatchA": 1}),
        ((3, 2, 6, 5), (2, 6, 3, 4), {"transA": 1, "transBatchA": 1}),
        ((2, 6, 5, 3), (4, 2, 6, 3), {"transB": 1, "transBatchB": 1}),
    ],
)
def test_fused_matmul_becomes_standard_operators(
    x: tuple[int, ...], w: tuple[int, ...], settings: dict[str, int]
) -> None:
    ops = check(build("FusedMatMul", x, {"w": normal(*w)}, ["x", "w"], **settings))
    assert "MatMul" in ops


@pytest.mark.parametrize(
    ("op", "inputs", "expected"),
    [
        ("Gelu", ["x"], ["Gelu"]),
        ("BiasGelu", ["x", "b"], ["Add", "Gelu"]),
        ("FastGelu", ["x"], ["Gelu"]),
        ("FastGelu", ["x", "b"], ["Add", "Gelu"]),
        ("QuickGelu", ["x"], ["Mul", "Sigmoid", "Mul"]),
    ],
)
def test_gelu_variants_become_standard_operators(
    op: str, inputs: list[str], expected: list[str]
) -> None:
    assert check(build(op, (2, 3, 4), {"b": normal(4)}, inputs)) == expected


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("simplified", [False, True])
@pytest.mark.parametrize("outputs", [1, 4])
def test_skip_layer_normalization_becomes_standard_operators(
    bias: bool, simplified: bool, outputs: int
) -> None:
    weights = {"s": normal(2, 3, 4), "g": normal(4), "b": normal(4), "c": normal(4)}
    inputs = ["x", "s", "g"] if simplified else ["x", "s", "g", "b"]
    op = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    inputs = [*inputs, "c"] if bias else inputs
    ops = check(build(op, (2, 3, 4), weights, inputs, outputs, epsilon=1e-5))
    assert ops[-1] == ("RMSNormalization" if simplified else "LayerNormalization")


def test_simplified_layer_normalization_becomes_rms_normalization() -> None:
    model = build("SimplifiedLayerNormalization", (2, 4), {"g": normal(4)}, ["x", "g"], axis=-1)
    assert check(model) == ["RMSNormalization"]


@pytest.mark.parametrize(
    ("op", "inputs", "settings"),
    [
        ("Attention", ["x", "w", "b"], {"num_heads": 2, "do_rotary": 1}),
        ("FusedGemm", ["x", "w"], {"activation": "HardSwish"}),
        ("FusedConv", ["x", "w"], {"activation": "Clip"}),
        ("FusedMatMul", ["x", "unknown"], {"transB": 1}),
        ("NoSuchOperator", ["x"], {}),
    ],
)
def test_variants_without_standard_operators_stay_fused(
    op: str, inputs: list[str], settings: dict[str, object]
) -> None:
    weights = {"w": normal(8, 24), "b": normal(24)}
    proto = build(op, (2, 3, 8), weights, inputs, **settings)
    model = ir.serde.deserialize_model(proto)
    before = len(model.graph)
    assert not decompose(model)
    assert [node.op_type for node in model.graph] == [op]
    assert len(model.graph) == before
