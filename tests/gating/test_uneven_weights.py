from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.uneven_weights import uneven_weights


def model(node: str, weight: np.ndarray, x: str = "float[n, 6] x") -> onnx.ModelProto:
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g ({x}) => (float[n, 6] y)
        {{ {node} r = Relu (h)  y = Flatten (r) }}"""
    )
    parsed.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return parsed


def weights(axis: int, factor: float, shape: tuple[int, ...] = (6, 6)) -> np.ndarray:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array[(slice(None),) * axis + (2,)] *= factor
    return array


@pytest.mark.parametrize(
    ("node", "array"),
    [
        ("h = MatMul (x, w)", weights(1, 300)),
        ("h = Gemm <transB = 1> (x, w)", weights(0, 300)),
    ],
)
def test_one_channel_that_reaches_far_is_noted(node, array) -> None:
    (note,) = uneven_weights(insert_gates(model(node, array), target="generic"))
    assert note.startswith("weight 'w' has one range for all channels")
    assert "weight_ranges = 'channel'" in note
    for settings in ({"weight_ranges": "channel"}, {"granularity": "channel"}):
        assert not list(uneven_weights(insert_gates(model(node, array), **settings)))


@pytest.mark.parametrize(
    "array", [weights(1, 10), weights(0, 300), weights(1, 0), np.zeros((6, 6), np.float32)]
)
def test_channels_that_are_alike_or_pruned_need_no_note(array) -> None:
    assert not list(
        uneven_weights(insert_gates(model("h = MatMul (x, w)", array), target="generic"))
    )


def test_a_channel_of_a_convolution() -> None:
    array = weights(0, 300, (6, 2, 1, 1))
    given = model("h = Conv (x, w)", array, "float[n, 2, 1, 1] x")
    (note,) = uneven_weights(insert_gates(given, target="generic"))
    assert "'w'" in note
