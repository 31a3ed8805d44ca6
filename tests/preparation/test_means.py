"""ReduceMean over all pixels becomes pooling; all others stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.means import pool_means


def _model(axes: list[int], keepdims: int, shape=(3, 4, 5)) -> onnx.ModelProto:
    sizes = ", ".join(map(str, shape))
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[n, {sizes}] x) => (y) <int64[{len(axes)}] axes = {{{", ".join(map(str, axes))}}}>
    {{ y = ReduceMean<keepdims={keepdims}>(x, axes) }}"""
    return onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3, -2]])
def test_a_mean_over_all_pixels_becomes_pooling(axes, keepdims) -> None:
    proto = _model(axes, keepdims)
    model = ir.from_proto(proto)
    pool_means(model)
    made = ir.to_proto(model)
    onnx.checker.check_model(made)
    assert [n.op_type for n in made.graph.node] == ["GlobalAveragePool", "Squeeze"][: 2 - keepdims]
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    before, after = (open_session(m).run(None, {"x": x})[0] for m in (proto, made))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    assert after.shape == before.shape


@pytest.mark.parametrize("axes", [[1], [1, 2], [1, 2, 3], [3]])
def test_means_over_other_axes_stay(axes) -> None:
    model = ir.from_proto(_model(axes, 1))
    pool_means(model)
    assert [node.op_type for node in model.graph] == ["ReduceMean"]


def test_means_of_sequences_stay() -> None:
    model = ir.from_proto(_model([1, 2], 0, shape=(4, 5)))
    pool_means(model)
    assert [node.op_type for node in model.graph] == ["ReduceMean"]
