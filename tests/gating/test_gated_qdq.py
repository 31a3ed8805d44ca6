from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role, code_range, intervals
from onnx_cgmq.contract.identifiers import GATED_DOMAIN
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.gated_qdq import (
    ACCUMULATOR_OP,
    INT32_LIMIT,
    accumulator_qdq,
    function_name,
    gated_qdq,
)
from tests.support.plans import FIXED_FORMS

SHAPE = (2, 3, 4)
AXIS = 1
FULL = (2, 4, 8, 16, 32)
PRUNED = (0, 2, 4, 8, 16, 32)
LADDERS = (FULL, PRUNED, (8,), (2, 8), (0, 4), (16, 32), (32,), (0, 16, 32), (0, 32))


def make_spec(
    form: GridForm, granularity: Granularity, widths: tuple[int, ...], channel_ranges: bool = False
) -> QuantizerSpec:
    axis = AXIS if channel_ranges or granularity is Granularity.CHANNEL else None
    ladder = Ladder(widths)
    return QuantizerSpec(
        "v", Role.WEIGHT, form, granularity, ladder, SHAPE, axis, channel_ranges=channel_ranges
    )


def run_options(optimize: bool = True) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def wrap(function: ir.Function, inputs, output_shapes, axis: int | None, opset: int):
    """A model that only calls a function."""
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in inputs.items()
    ]
    outputs = [value.name for value in function.outputs]
    attributes = {} if axis is None else {"axis": axis}
    node = onnx.helper.make_node(
        function.name, list(inputs), outputs, domain=GATED_DOMAIN, **attributes
    )
    results = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(outputs, output_shapes, strict=True)
    ]
    imports = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(GATED_DOMAIN, 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", infos, results),
        functions=[ir.serde.serialize_function(function)],
        opset_imports=imports,
        ir_version=onnx.helper.find_min_ir_version_for(imports[:1]),
    )
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), run_options())


@cache
def session(spec: QuantizerSpec, opset: int = 25) -> ort.InferenceSession:
    inputs = {"x": SHAPE}
    if spec.form is GridForm.AFFINE:
        inputs["low"] = spec.range_shape
    inputs |= {"high": spec.range_shape, "gate": spec.gate_shape}
    return wrap(gated_qdq(spec, opset), inputs, (SHAPE, spec.range_item_shape), spec.axis, opset)


def reference(spec: QuantizerSpec, x, low, high, gate):
    """The formula of the quantizer in float32 numpy: ``(y, step)``."""
    widths = spec.ladder.widths_of(gate)
    y = np.where(widths == 0, np.float32(0), x).astype(np.float32)
    steps = {}
    for width in spec.ladder.quantized:
        index = spec.range_index(width)
        start = -high[index] if spec.form.is_symmetric else low[index]
        n = np.float32(intervals(width, spec.form))
        step = (high[index] - start) / n
        smallest, largest = code_range(width, spec.form)
        zero_point = np.float32(0)
        if spec.form is GridForm.AFFINE:
            zero_point = np.clip(np.round(-start / step), np.float32(0), n)
        code = np.clip(np.round(x / step) + zero_point, smallest, largest).astype(np.float32)
        y = np.where(widths == width, (code - zero_point) * step, y)
        steps[width] = step
    item = np.zeros(spec.range_item_shape, np.float32)
    if not steps or widths.max() > 8:
        return y, item
    narrowest = spec.ladder.quantized[0]
    if spec.granularity is Granularity.ELEMENT:
        widths = widths.max()
    for width, step in steps.items():
        chosen = (widths == width) | ((widths == 0) & (width == narrowest))
        item = np.where(chosen, step, item)
    return y, item.reshape(spec.range_item_shape)


def assert_same_bits(actual, expected):
    """Equal to the last bit, but for the sign of zero."""
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def run(spec: QuantizerSpec, x, low, high, gate, opset: int = 25):
    feeds = {"x": x, "high": high, "gate": gate}
    if spec.form is GridForm.AFFINE:
        feeds["low"] = low
    return session(spec, opset).run(None, feeds)


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(FIXED_FORMS),
    granularity=st.sampled_from(Granularity),
    widths=st.sampled_from(LADDERS),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-4, 1.0, 37.0]),
    ties=st.booleans(),
)
def test_quantizer_equals_the_formula_to_the_last_bit(form, granularity, widths, seed, scale, ties):
    spec = make_spec(form, granularity, widths)
    rng = np.random.default_rng(seed)
    high = (rng.random(spec.range_shape) * scale + scale / 8).astype(np.float32)
    low = (-rng.random(spec.range_shape) * scale).astype(np.float32)
    low = np.zeros_like(low) if form is GridForm.UNSIGNED else low
    x = (rng.normal(size=SHAPE) * scale).astype(np.float32)
    if ties:  # exactly between two codes, and far outside of the range
        width = spec.ladder.quantized[0] if spec.ladder.quantized else 8
        x = (rng.integers(-20, 20, SHAPE) * np.float32(0.5) * high.max()).astype(np.float32)
        x /= np.float32(intervals(width))
    choices = [spec.ladder.gate_of(width) for width in widths]
    choices += [t for width in widths[:-1] if np.isfinite(t := spec.ladder.threshold(width))]
    gate = rng.choice(choices, spec.gate_shape).astype(np.float32)
    y, step = run(spec, x, low, high, gate)
    expected_y, expected_step = reference(spec, x, low, high, gate)
    assert_same_bits(y, expected_y)
    assert_same_bits(step, expected_step)


@pytest.mark.parametrize("width", FULL)
@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("form", FIXED_FORMS)
def test_quantizer_at_each_width(form, granularity, width):
    spec = make_spec(form, granularity, FULL)
    rng = np.random.default_rng(width)
    high = np.full(spec.range_shape, 1.25, np.float32)
    low = np.zeros_like(high) if form is GridForm.UNSIGNED else -0.5 * high
    x = np.concatenate([rng.normal(size=22), [1.25, -1.25]]).reshape(SHAPE).astype(np.float32)
    gate = np.full(spec.gate_shape, spec.ladder.gate_of(width), np.float32)
    y, step = run(spec, x, low, high, gate)
    expected_y, expected_step = reference(spec, x, low, high, gate)
    assert_same_bits(y, expected_y)
    assert_same_bits(step, expected_step)
    assert (step > 0).all() == (width <= 8)
    if width == 32:
        assert_same_bits(y, x)
    else:
        assert len(np.unique(y)) <= 2**width


@pytest.mark.parametrize("width", FULL)
@pytest.mark.parametrize("form", FIXED_FORMS)
def test_quantizer_with_one_gate_and_a_range_for_each_channel(form, width):
    spec = make_spec(form, Granularity.TENSOR, FULL, channel_ranges=True)
    assert (spec.gate_shape, spec.range_item_shape) == ((), (1, 3, 1))
    rng = np.random.default_rng(width)
    high = (rng.random(spec.range_shape) + 0.5).astype(np.float32)
    low = np.zeros_like(high) if form is GridForm.UNSIGNED else -0.5 * high
    x = rng.normal(size=SHAPE).astype(np.float32)
    gate = np.array(spec.ladder.gate_of(width), np.float32)
    y, step = run(spec, x, low, high, gate)
    expected_y, expected_step = reference(spec, x, low, high, gate)
    assert_same_bits(y, expected_y)
    assert_same_bits(step, expected_step)
    assert (step > 0).all() == (width <= 8)


@pytest.mark.parametrize("opset", [21, 23])
@pytest.mark.parametrize("granularity", Granularity)
def test_quantizer_in_older_opsets(granularity, opset):
    spec = make_spec(GridForm.SYMMETRIC, granularity, FULL)
    x = np.linspace(-2, 2, 24, dtype=np.float32).reshape(SHAPE)
    high = np.ones(spec.range_shape, np.float32)
    gate = np.full(spec.gate_shape, 0.5, np.float32)
    y, _ = run(spec, x, -high, high, gate, opset)
    assert_same_bits(y, reference(spec, x, -high, high, gate)[0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), high=st.floats(2.0**-10, 2.0**10, width=32))
def test_element_grids_are_nested(seed, high):
    """Every value of a grid is also on all wider grids, up to float rounding."""
    spec = make_spec(GridForm.SYMMETRIC, Granularity.ELEMENT, FULL)
    x = (np.random.default_rng(seed).normal(size=SHAPE) * high).astype(np.float32)
    ranges = np.full(spec.range_shape, high, np.float32)
    values = x
    for width in (2, 4, 8, 16):
        gate = np.full(SHAPE, spec.ladder.gate_of(width), np.float32)
        coarse, _ = run(spec, values, -ranges, ranges, gate)
        for finer in (w for w in (4, 8, 16) if w > width):
            fine_gate = np.full(SHAPE, spec.ladder.gate_of(finer), np.float32)
            fine, _ = run(spec, coarse, -ranges, ranges, fine_gate)
            np.testing.assert_allclose(fine, coarse, rtol=4e-7, atol=0)


def test_step_of_mixed_elements_is_that_of_the_widest():
    spec = make_spec(GridForm.SYMMETRIC, Granularity.ELEMENT, FULL)
    x, high = np.ones(SHAPE, np.float32), np.ones(spec.range_shape, np.float32)
    gate = np.full(SHAPE, 0.5, np.float32)
    gate[0, 0, 0] = 2.5
    assert run(spec, x, -high, high, gate)[1] == np.float32(2) / np.float32(255)
    gate[0, 0, 1] = 3.5
    assert run(spec, x, -high, high, gate)[1] == 0


def test_function_names():
    assert (
        function_name(make_spec(GridForm.AFFINE, Granularity.CHANNEL, PRUNED))
        == "GatedQDQ_affine_channel_0_2_4_8_16_32"
    )
    assert function_name(make_spec(GridForm.SYMMETRIC, Granularity.ELEMENT, (2, 8))) == (
        "GatedQDQ_symmetric_shared_2_8"
    )


@pytest.mark.parametrize("step_shape", [(), (3,), (3, 1), (1, 3)])
def test_accumulator_rounds_a_bias_that_fits_into_int32(step_shape):
    inputs = {"bias": (3,), "step_x": (), "step_w": step_shape}
    model = wrap(accumulator_qdq(25), inputs, ((3,),), None, 25)
    rng = np.random.default_rng(1)
    bias = np.array([0.3, -40.0, 1e3], np.float32)
    step_x = np.array(0.01, np.float32)
    step_w = np.asarray(rng.random(step_shape) + 0.01, dtype=np.float32)
    (y,) = model.run(None, {"bias": bias, "step_x": step_x, "step_w": step_w})
    step = step_x * step_w.reshape(-1)
    np.testing.assert_array_equal(y, np.round(bias / step) * step)
    assert int(np.float32(INT32_LIMIT)) == INT32_LIMIT
    large = np.array([0.3, -40.0, 1e9], np.float32)  # beyond INT32: a float kernel adds it
    for same, step_x in ((bias, 0), (large, 0.01)):
        given = {"bias": same, "step_x": np.array(step_x, np.float32), "step_w": step_w}
        np.testing.assert_array_equal(model.run(None, given)[0], same)


def test_accumulator_is_a_function_of_the_gated_domain():
    function = accumulator_qdq(21)
    assert (function.domain, function.name) == (GATED_DOMAIN, ACCUMULATOR_OP)
