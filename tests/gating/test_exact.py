from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role, intervals
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.exact import exact_ranges
from tests.support.plans import FIXED_FORMS

WIDTHS = (2, 4, 8, 16, 32)


def make_spec(form, granularity=Granularity.TENSOR, role=Role.ACTIVATION, exact=True):
    axis = 1 if granularity is Granularity.CHANNEL else None
    return QuantizerSpec("t", role, form, granularity, Ladder(WIDTHS), (1, 3, 2), axis, exact=exact)


def draw_ranges(spec, seed):
    rng = np.random.default_rng(seed)
    high = (rng.random(spec.range_shape) * 10 ** rng.uniform(-4, 4) + 1e-5).astype(np.float32)
    low = {GridForm.UNSIGNED: 0, GridForm.AFFINE: rng.random()}.get(spec.form, 1) * -high
    return low.astype(np.float32), high


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(FIXED_FORMS),
    granularity=st.sampled_from(Granularity),
    role=st.sampled_from([Role.ACTIVATION, Role.WEIGHT]),
    seed=st.integers(0, 10_000),
)
def test_exact_steps_have_few_bits_and_follow_from_their_ranges(form, granularity, role, seed):
    spec = make_spec(form, granularity, role)
    low, high = draw_ranges(spec, seed)
    exact_low, exact_high = exact_ranges(spec, low, high)
    again = exact_ranges(spec, exact_low, exact_high)
    np.testing.assert_array_equal(again, (exact_low, exact_high))
    bits = 1 if role is Role.ACTIVATION else 3
    widths = (8,) if granularity is Granularity.ELEMENT else (2, 4, 8)
    for index, width in enumerate(widths):
        step = (exact_high[index] - exact_low[index]) / np.float32(intervals(width, form))
        mantissa, _ = np.frexp(step)
        np.testing.assert_array_equal(mantissa * 2**bits, np.round(mantissa * 2**bits))
        ratio = step / ((high[index] - low[index]) / np.float32(intervals(width, form)))
        assert (np.abs(ratio - 1) <= 2.0**-bits).all()
        if form is GridForm.AFFINE:
            zero_point = -exact_low[index] / step
            unit = 2 if width == 8 else 1  # integer Add and Mul round ties as floats then
            np.testing.assert_array_equal(zero_point / unit, np.round(zero_point / unit))


@pytest.mark.parametrize("form", FIXED_FORMS)
def test_ranges_of_16_bits_and_of_inexact_specs_stay(form):
    low, high = draw_ranges(make_spec(form), 1)
    _, exact_high = exact_ranges(make_spec(form), low, high)
    assert exact_high[-1] == high[-1]
    kept = exact_ranges(make_spec(form, exact=False), low, high)
    np.testing.assert_array_equal(kept, (low, high))
