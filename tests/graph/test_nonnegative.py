from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.graph.nonnegative import nonnegative_values

NONNEGATIVE = [
    "v = Relu(x)",
    "v = Sigmoid(x)",
    "v = Softmax(x)",
    "v = ThresholdedRelu(x)",
    "a = Abs(x) v = Sqrt(a)",
    "v = Clip(x, zero, six)",
    "v = Max(x, zero)",
    "r = Relu(x) v = Reshape(r, shape)",
    "r = Relu(x) t = Transpose(r) v = Identity(t)",
    "r = Relu(x) m = Mul(r, six) v = Add(m, r)",
    "r = Relu(x) v = ReduceMean(r, minus_axis)",
    "r = Relu(x) v = Pad(r, pads)",
    "r = Relu(x) v = Pad(r, pads, zero)",
    "v = Identity(six)",
]
UNKNOWN = [
    "v = Tanh(x)",
    "v = LeakyRelu(x)",
    "v = Identity(x)",
    "v = Clip(x)",
    "v = Clip(x, x, six)",
    "v = Clip(x, minus, six)",
    "v = ThresholdedRelu<alpha = -1.0>(x)",
    "r = Relu(x) v = Sub(r, six)",
    "r = Relu(x) v = Mul(r, minus)",
    "r = Relu(x) v = Add(r, x)",
    "v = Max(x, minus)",
    "r = Relu(x) v = Pad(r, pads, minus)",
    "r = Relu(x) a, v = Split<num_outputs = 2>(r)",
]


def proven(body: str) -> bool:
    """Whether the output of a graph is proven to be at least 0."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]>
        g (float[2, 4] x) => (float[N, M] v)
        <float zero = {{0.0}}, float six = {{6.0}}, float minus = {{-1.0}},
         int64[2] shape = {{4, 2}}, int64[1] minus_axis = {{-1}}, int64[4] pads = {{0, 0, 0, 0}}>
        {{ {body} }}"""
    )
    graph = ir.serde.deserialize_model(model).graph
    return graph.outputs[0] in nonnegative_values(graph)


@pytest.mark.parametrize("body", NONNEGATIVE)
def test_nonnegative_values_are_found(body):
    assert proven(body)


@pytest.mark.parametrize("body", UNKNOWN)
def test_values_that_may_be_negative_are_not_taken_for_nonnegative(body):
    assert not proven(body)


def test_nonnegative_values_are_found_in_deep_graphs():
    steps = " ".join(f"v{i + 1} = Identity(v{i})" for i in range(3000))
    assert proven(f"v0 = Relu(x) {steps} v = Identity(v3000)")
