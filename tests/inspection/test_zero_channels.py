"""Channels that only add zeros to both operands of a Conv are not counted; any others are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_cgmq.inspection import inspect

PADDED = {
    "image": "a = Pad(q, pads, z)",
    "x": "x = DequantizeLinear(a, s, z)",
    "weight": "b = Pad(codes, pads)",
    "w": "w = DequantizeLinear<axis=0>(b, t, zeros)",
    "conv": "c = Conv(x, w)",
}
"""Nodes around a Conv of 3 channels with a fourth one of zeros."""


def _channels(**changed: str) -> int:
    """Channels that are counted, with some nodes written in another way."""
    nodes = {**PADDED, **changed}
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[1,3,4,4] i) => (float[a,b,c,d] y)
    <float s = {{0.1}}, uint8 z = {{7}}, uint8 one = {{1}}, int8 two = {{2}},
     float[2] t = {{0.1, 0.2}}, int8[2] zeros = {{0, 0}},
     float[4] of_four = {{1, 1, 1, 1}}, int8[4] four_zeros = {{0, 0, 0, 0}},
     int64[8] pads = {{0, 0, 0, 0, 0, 1, 0, 0}}, int64[8] rows = {{0, 0, 0, 0, 0, 1, 1, 0}},
     int64[4] axes = {{0, 1, 2, 3}}>
    {{
        q = QuantizeLinear(i, s, z)
        {" ".join(nodes.values())}
        y = Relu(c)
    }}"""
    proto = onnx.parser.parse_model(text)
    shape = (2, 4, 1, 1) if "weight" in changed and not changed["weight"] else (2, 3, 1, 1)
    codes = np.random.default_rng(0).integers(1, 100, shape).astype(np.int8)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(codes, "codes"))
    (node,) = inspect(proto).nodes
    height = 5 if "rows" in nodes["image"] else 4
    return node.macs // (2 * 4 * height)


def test_zeros_in_both_operands_are_not_counted() -> None:
    assert _channels() == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"image": "a = Pad(q, pads, one)"},  # not the code of 0
        {"image": "a = Pad(q, pads)"},
        {"weight": "b = Pad(codes, pads, two)"},
        {"image": 'a = Pad<mode="edge">(q, pads)'},
        {"image": "a = Pad(q, rows, z)"},  # a row more too
        {"image": "a = Pad(q, pads, z, axes)"},
        {"weight": "", "w": "w = DequantizeLinear<axis=0>(codes, t, zeros)"},  # a weight of its own
        {"w": "w = DequantizeLinear<axis=1>(b, of_four, four_zeros)"},
        {"conv": "c = Conv(x, w) also = Relu(x)"},
    ],
    ids=str,
)
def test_all_others_are_counted(changed: dict[str, str]) -> None:
    assert _channels(**changed) == 4
