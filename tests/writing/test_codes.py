from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.summed_pairs import SumOrder
from onnx_cgmq.writing.codes import (
    accumulator_codes,
    fits_int32,
    grid_codes,
    may_saturate,
    quantized_values,
    stored_step,
)


def weight(widths, granularity, high=1.5):
    ladder = Ladder((0, 2, 4, 8, 16, 32))
    widths = np.asarray(widths)
    spec = QuantizerSpec("w", Role.WEIGHT, GridForm.SYMMETRIC, granularity, ladder, (2, 3), 0)
    count = np.where((widths > 0) & (widths < 32), 2.0**widths - 1, np.inf)
    high = np.asarray(high, dtype=np.float32)
    step = ((high + high) / count).astype(np.float32)
    plan = TensorPlan(
        name="w",
        role=Role.WEIGHT,
        form=GridForm.SYMMETRIC,
        granularity=granularity,
        shape=(2, 3),
        axis=0,
        widths=widths,
        low=-high,
        high=high,
        step=step,
        zero_point=np.zeros_like(widths),
    )
    return spec, plan


VALUES = np.array([[-2.0, -0.4, 0.0], [0.3, 1.0, 1.6]], dtype=np.float32)


def test_codes_of_a_weight_with_one_width() -> None:
    spec, plan = weight(2, Granularity.TENSOR)
    grid = grid_codes(spec, plan, VALUES)
    np.testing.assert_array_equal(grid.codes, [[-1, 0, 0], [0, 1, 1]])
    assert grid.scale == np.float32(1)
    assert grid.width == 2


def test_element_codes_are_on_the_widest_grid() -> None:
    spec, plan = weight([[2, 4, 0], [2, 2, 8]], Granularity.ELEMENT)
    grid = grid_codes(spec, plan, VALUES)
    assert grid.width == 8
    np.testing.assert_array_equal(grid.codes, [[-85, -2 * 17, 0], [0, 85, 127]])
    np.testing.assert_allclose(grid.codes * grid.scale, quantized_values(plan, VALUES), rtol=1e-6)


def test_channel_codes_have_a_scale_each() -> None:
    spec, plan = weight([[2], [4]], Granularity.CHANNEL, high=[[1.5], [3.0]])
    grid = grid_codes(spec, plan, VALUES)
    assert grid.width == 4
    np.testing.assert_allclose(grid.scale, [1.0, 0.4])
    np.testing.assert_array_equal(grid.codes, [[-1, 0, 0], [1, 2, 4]])


def test_pruned_entries_have_the_step_of_the_narrowest_width() -> None:
    spec, plan = weight([[0], [4]], Granularity.CHANNEL, high=[[1.5], [3.0]])
    np.testing.assert_allclose(stored_step(spec, plan), [[1.0], [0.4]])
    spec, plan = weight(np.zeros((2, 3), dtype=int), Granularity.ELEMENT)
    assert stored_step(spec, plan) == 1
    assert not grid_codes(spec, plan, VALUES).codes.any()


def test_float_entries_have_no_codes() -> None:
    spec, plan = weight([[32], [2]], Granularity.CHANNEL, high=[[1.5], [1.5]])
    with pytest.raises(ValueError, match="no codes"):
        grid_codes(spec, plan, VALUES)
    np.testing.assert_array_equal(
        quantized_values(plan, VALUES), np.array([[-2.0, -0.4, 0.0], [0, 1, 1]], np.float32)
    )


def test_accumulator_codes_and_whether_they_fit() -> None:
    step = np.array([1e-9, 0.5], dtype=np.float32)
    bias = np.array([-1.0, 1.3], dtype=np.float32)
    codes = accumulator_codes(bias, step)
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, [-1_000_000_000, 3])
    assert fits_int32(bias, step)
    assert not fits_int32(3 * bias, step)


@pytest.mark.parametrize(
    ("codes", "activation", "expected"),
    [
        ([127, 1, -1], 255, False),
        ([127, 2, -1], 255, True),
        ([127, -1, 2], 255, False),
        ([-127, -2, 90], 255, True),
        ([-127, -1, 90, 39], 255, True),
        ([5, -127, -2], 255, False),
        ([127, -127], 255, False),
        ([127, 127], 15, False),
        ([7, 7], 255, False),
        ([127], 255, False),
        ([127, 127], 0, False),
    ],
)
def test_which_codes_may_saturate_int16(codes, activation, expected) -> None:
    array = np.array(codes, np.int32)
    assert may_saturate(array, [(SumOrder((), (0,)), activation)]) is expected
    assert may_saturate(np.array([codes, codes]), [(SumOrder((0,), (1,)), activation)]) is expected
    assert not may_saturate(array, [])


def test_only_neighbours_in_the_order_of_the_sums_saturate() -> None:
    codes = np.array([[100, 100, 0], [1, 1, 100]], np.int32)
    rows, columns = SumOrder((0,), (1,)), SumOrder((1,), (0,))
    assert may_saturate(codes, [(rows, 255)])
    assert not may_saturate(codes, [(columns, 255)])
    assert may_saturate(codes, [(columns, 255), (rows, 255)])
    assert not may_saturate(codes, [(columns, 255), (rows, 100)])
