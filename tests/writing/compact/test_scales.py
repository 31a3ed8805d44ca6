"""Scales are computed or narrowed only where they stay the same to the last bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_cgmq.writing.compact.scales import (
    compute_bias_scales,
    drop_zero_points_of_int32,
    narrow_scales,
)

CHANNELS = 32


def model(weight_scale: np.ndarray, bias_scale: np.ndarray, bias_zero: int = 0) -> ir.Model:
    rng = np.random.default_rng(0)
    body = """<ir_version: 10, opset_import: ["": 21]>
    g (uint8[1, 3] x) => (float[1, 32] y) {
        a = DequantizeLinear(x, sx, zx)
        w = DequantizeLinear<axis = 1>(cw, sw, zw)
        b = DequantizeLinear<axis = 0>(cb, sb, zb)
        y = Gemm(a, w, b)
    }"""
    proto = onnx.parser.parse_model(body)
    arrays = {
        "sx": np.float32(0.3),
        "zx": np.uint8(3),
        "cw": rng.integers(-7, 8, (3, CHANNELS)).astype(np.int8),
        "sw": weight_scale.astype(np.float32),
        "zw": np.zeros(CHANNELS, np.int8),
        "cb": rng.integers(-99, 99, CHANNELS).astype(np.int32),
        "sb": bias_scale.astype(np.float32),
        "zb": np.full(CHANNELS, bias_zero, np.int32),
    }
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    )
    return ir.from_proto(proto)


def run(written: ir.Model) -> np.ndarray:
    proto = ir.to_proto(written)
    onnx.checker.check_model(proto, full_check=True)
    return ReferenceEvaluator(proto).run(None, {"x": np.array([[0, 100, 255]], np.uint8)})[0]


def operators(written: ir.Model) -> list[str]:
    return [node.op_type for node in written.graph]


SCALES = np.random.default_rng(1).uniform(0.01, 0.1, CHANNELS).astype(np.float32)


def test_scale_of_a_bias_is_computed_from_both_scales() -> None:
    written = model(SCALES, np.float32(0.3) * SCALES)
    before = run(written)
    compute_bias_scales(written.graph)
    assert operators(written).count("Mul") == 1
    np.testing.assert_array_equal(run(written), before)


def test_scale_of_a_bias_that_is_no_product_is_kept() -> None:
    written = model(SCALES, np.nextafter(np.float32(0.3) * SCALES, np.float32(1)))
    compute_bias_scales(written.graph)
    assert "Mul" not in operators(written)


@pytest.mark.parametrize(("zero", "inputs"), [(0, 2), (1, 3)])
def test_only_zero_points_of_zero_are_removed(zero, inputs) -> None:
    written = model(SCALES, SCALES, zero)
    before = run(written)
    drop_zero_points_of_int32(written.graph)
    assert len(next(n for n in written.graph if n.outputs[0].name == "b").inputs) == inputs
    assert len(next(n for n in written.graph if n.outputs[0].name == "w").inputs) == 3
    np.testing.assert_array_equal(run(written), before)


@pytest.mark.parametrize(
    ("scales", "stored"),
    [
        (np.tile([0.25, 0.4375, 3.5], 11)[:CHANNELS], "FLOAT8E5M2"),
        (np.tile([0.25, 0.4375, 2.0**-30], 11)[:CHANNELS], "BFLOAT16"),
        (np.tile([0.25, 1.0 + 2.0**-7], 16), "BFLOAT16"),
        (np.tile([0.25, 1.0 + 2.0**-8], 16), "FLOAT"),
        (SCALES, "FLOAT"),
    ],
)
def test_scales_with_few_significant_bits_are_stored_in_narrow_types(scales, stored) -> None:
    written = model(scales, SCALES)
    before = run(written)
    narrow_scales(written.graph, 21)
    dtypes = {v.const_value.dtype.name for v in written.graph.initializers.values()}
    assert stored in dtypes
    assert ("Cast" in operators(written)) == (stored != "FLOAT")
    np.testing.assert_array_equal(run(written), before)


def test_old_opsets_and_short_vectors_keep_float_scales() -> None:
    written = model(np.full(CHANNELS, 0.25), SCALES)
    narrow_scales(written.graph, 12)
    assert "Cast" not in operators(written)
