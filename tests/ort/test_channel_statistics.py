from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_cgmq.data.source import open_data
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.ort.channel_statistics import channel_statistics
from onnx_cgmq.ort.session import open_session

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[BATCH,3,5] x) => (float[BATCH,3,5] y) { r = Relu(x) m = Neg(r) y = Exp(m) }"""


@pytest.mark.parametrize(("batch", "size"), [("n", 4), ("n", 3), ("3", 3), ("n", 1)])
def test_statistics_are_those_of_all_samples(batch: str, size: int) -> None:
    """Also if a batch has as many samples as there are channels, or is filled up."""
    proto = onnx.shape_inference.infer_shapes(parser.parse_model(TEXT.replace("BATCH", batch)))
    model = load_model(proto)
    x = np.random.default_rng(0).normal(size=(9, 3, 5)).astype(np.float32)
    relu, neg, _ = (node.outputs[0] for node in model.graph)
    found = channel_statistics(model, {relu: 1, neg: 2}, open_data(x, model).batches(size))
    r = np.maximum(x, 0).astype(np.float64)
    for value, array, others in ((relu, r, (0, 2)), (neg, -r, (0, 1))):
        np.testing.assert_array_equal(found[value].low, array.min(axis=others))
        np.testing.assert_array_equal(found[value].high, array.max(axis=others))
        want = np.square(array).mean(axis=others)
        np.testing.assert_allclose(found[value].mean_square, want, rtol=1e-6)
    assert [o.name for o in model.graph.outputs] == ["y"]
    open_session(model)  # it is still the model that it was


def test_values_that_are_not_finite_are_seen() -> None:
    text = TEXT.replace("BATCH", "n").replace("Relu", "Sqrt")
    model = load_model(onnx.shape_inference.infer_shapes(parser.parse_model(text)))
    x = np.ones((2, 3, 5), np.float32)
    x[0, 1, 2] = -1
    root = model.graph.node(0).outputs[0]
    found = channel_statistics(model, {root: 1}, open_data(x, model).batches(2))
    np.testing.assert_array_equal(np.isfinite(found[root].mean_square), [True, False, True])
