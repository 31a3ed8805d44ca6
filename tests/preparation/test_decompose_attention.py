"""Attention as standard operators computes the same in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.preparation.decompose import DOMAIN, decompose

BATCH, LENGTH, HEADS, SIZE, PAST = 2, 4, 2, 3, 3
WIDTH = HEADS * SIZE


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


MASKS = {
    "none": None,
    "keys": np.array([[1, 1, 0, 1], [1, 1, 1, 0]], np.int32),
    "queries": np.tril(np.ones((BATCH, LENGTH, LENGTH), np.int32)),
    "ends": np.array([3, 4], np.int32),
    "ends and starts": np.array([4, 3, 1, 0], np.int32),
}


def _model(
    op: str, arrays: dict[str, Any], outputs: int, opset: int, **attributes: Any
) -> onnx.ModelProto:
    fed = {name: array for name, array in arrays.items() if array is not None}
    names = [name if name in fed else "" for name in arrays]
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op, names, results, name="it", domain=DOMAIN, **attributes)
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in fed.items()
    ]
    made = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in results]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    graph = helper.make_graph([node], "g", values, made)
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def _run(model: onnx.ModelProto, arrays: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    fed = {name: array for name, array in arrays.items() if array is not None}
    outputs: list[Any] = session.run(None, fed)
    return outputs


def _check(op: str, arrays: dict[str, Any], outputs: int = 1, **attributes: Any) -> None:
    proto = _model(op, arrays, outputs, 20, num_heads=HEADS, **attributes)
    model = ir.from_proto(proto)
    assert decompose(model)
    infer_shapes(model)
    assert {node.domain for node in model.graph} == {""}
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    for old, new in zip(_run(proto, arrays), _run(after, arrays), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize(("causal", "score_bias"), [(0, True), (1, False)])
def test_attention_becomes_standard_operators(mask: str, causal: int, score_bias: bool) -> None:
    arrays = {
        "x": _random(BATCH, LENGTH, 5),
        "w": _random(5, 3 * WIDTH),
        "b": _random(3 * WIDTH),
        "mask": MASKS[mask],
        "past": None,
        "score_bias": _random(1, HEADS, LENGTH, LENGTH) if score_bias else None,
    }
    _check("Attention", arrays, unidirectional=causal)


@pytest.mark.parametrize(("causal", "masked"), [(0, True), (1, False)])
def test_attention_with_a_past_becomes_standard_operators(causal: int, masked: bool) -> None:
    seen = np.ones((BATCH, PAST + LENGTH), np.int32)
    seen[:, -2:] = 0
    arrays = {
        "x": _random(BATCH, LENGTH, 5),
        "w": _random(5, 3 * WIDTH),
        "b": _random(3 * WIDTH),
        "mask": seen if masked else None,
        "past": _random(2, BATCH, HEADS, PAST, SIZE),
    }
    _check("Attention", arrays, 2, unidirectional=causal)


def test_attention_with_values_of_another_size_becomes_standard_operators() -> None:
    arrays = {"x": _random(BATCH, LENGTH, 5), "w": _random(5, 20), "b": _random(20)}
    _check("Attention", arrays, qkv_hidden_sizes=[WIDTH, WIDTH, 8], scale=0.4)


@pytest.mark.parametrize("mask", ["none", "keys", "ends", "queries"])
@pytest.mark.parametrize(("biased", "causal"), [(True, 0), (False, 1)])
def test_multi_head_attention_becomes_standard_operators(
    mask: str, biased: bool, causal: int
) -> None:
    arrays = {
        "q": _random(BATCH, LENGTH, WIDTH),
        "k": _random(BATCH, LENGTH, WIDTH),
        "v": _random(BATCH, LENGTH, 8),
        "b": _random(20) if biased else None,
        "mask": MASKS[mask],
        "score_bias": _random(BATCH, 1, LENGTH, LENGTH) if biased else None,
    }
    _check("MultiHeadAttention", arrays, unidirectional=causal)


def test_multi_head_attention_with_a_past_becomes_standard_operators() -> None:
    arrays = {
        "q": _random(BATCH, LENGTH, WIDTH),
        "k": _random(BATCH, LENGTH, WIDTH) * 2,
        "v": _random(BATCH, LENGTH, WIDTH) * 3,
        "b": None,
        "mask": None,
        "score_bias": None,
        "past_key": _random(BATCH, HEADS, PAST, SIZE),
        "past_value": _random(BATCH, HEADS, PAST, SIZE) * 2,
    }
    _check("MultiHeadAttention", arrays, 3)


@pytest.mark.parametrize(
    ("op", "arrays", "attributes"),
    [
        ("Attention", {"x": _random(2, 3, 5), "w": _random(5, 18)}, {"do_rotary": 1}),
        (
            "MultiHeadAttention",
            {"q": _random(2, 3, 6), "k": _random(2, 2, 3, 3), "v": _random(2, 2, 3, 3)},
            {},
        ),
    ],
)
def test_attention_variants_without_standard_operators_stay_fused(
    op: str, arrays: dict[str, Any], attributes: dict[str, Any]
) -> None:
    model = ir.from_proto(_model(op, arrays, 1, 20, num_heads=HEADS, **attributes))
    assert not decompose(model)
    assert [node.op_type for node in model.graph] == [op]
