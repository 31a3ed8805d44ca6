from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import (
    GridForm,
    Ladder,
    code_range,
    intervals,
    nesting_factor,
    rounded_step,
)

WIDTHS = (0, 2, 4, 8, 16, 32)
LADDERS = st.sets(st.sampled_from(WIDTHS), min_size=1).filter(lambda s: s != {0})
ladders = LADDERS.map(lambda widths: Ladder(tuple(sorted(widths))))
gates = st.floats(-10, 10, width=32)


@pytest.mark.parametrize(
    ("bits", "form", "expected"),
    [
        (0, GridForm.SYMMETRIC, (0, 0)),
        (2, GridForm.SYMMETRIC, (-1, 1)),
        (4, GridForm.SYMMETRIC, (-7, 7)),
        (8, GridForm.SYMMETRIC, (-127, 127)),
        (16, GridForm.SYMMETRIC, (-32767, 32767)),
        (2, GridForm.UNSIGNED, (0, 3)),
        (8, GridForm.AFFINE, (0, 255)),
    ],
)
def test_code_range(bits, form, expected):
    assert code_range(bits, form) == expected


@pytest.mark.parametrize("bits", [-1, 32, 64])
def test_no_codes(bits):
    with pytest.raises(ValueError, match=f"{bits} bits have no integer codes"):
        code_range(bits, GridForm.SYMMETRIC)


def test_nesting():
    assert [nesting_factor(a, b) for a, b in ((2, 4), (4, 8), (8, 16), (2, 16))] == [
        5, 17, 257, 21845
    ]  # fmt: skip
    with pytest.raises(ValueError, match="not a subset"):
        nesting_factor(8, 4)


@settings(deadline=None)
@given(
    st.sampled_from((2, 4, 8)),
    st.sampled_from((4, 8, 16)),
    st.sampled_from(list(GridForm)),
)
def test_scaled_codes_stay_in_the_finer_range(coarse, fine, form):
    if fine <= coarse:
        return
    factor = nesting_factor(coarse, fine)
    assert factor * intervals(coarse) == intervals(fine)
    smallest, largest = code_range(coarse, form)
    fine_smallest, fine_largest = code_range(fine, form)
    assert fine_smallest <= factor * smallest <= factor * largest <= fine_largest


@pytest.mark.parametrize("form", GridForm)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_a_range_reaches_its_largest_code(bits, form):
    smallest, largest = code_range(bits, form)
    margin = 0.5 if form.is_symmetric else 0
    assert intervals(bits, form) == largest - smallest + 2 * margin


@settings(deadline=None)
@given(st.floats(2.0**-60, 2.0**60, width=32), st.integers(1, 5))
def test_steps_rounded_up_are_the_smallest_that_are_not_below(step, bits):
    array = np.array(step, np.float32)
    up = rounded_step(array, bits, up=True)
    assert up >= array
    assert rounded_step(up, bits) == up
    assert up in (rounded_step(array, bits), rounded_step(array, bits) + _last_bit(up, bits))


def _last_bit(step, bits):
    """The distance to the next smaller step of so many bits."""
    mantissa, exponent = np.frexp(step)
    return np.ldexp(1.0, exponent - bits - (1 if mantissa == 0.5 else 0))


@settings(deadline=None)
@given(st.floats(2.0**-60, 2.0**60, width=32), st.integers(1, 5))
def test_rounded_steps_are_near_and_have_few_bits(step, bits):
    rounded = rounded_step(np.array([step], np.float32), bits)
    assert rounded_step(rounded, bits) == rounded
    assert abs(rounded[0] - step) <= step * 2.0**-bits
    mantissa, _ = np.frexp(rounded[0])
    assert mantissa * 2**bits == int(mantissa * 2**bits)


def test_table_of_the_paper():
    gate = np.array([-1, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.1, 5.5], np.float32)
    widths = Ladder(WIDTHS).widths_of(gate)
    assert widths.tolist() == [0, 0, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32]
    assert Ladder().widths_of(gate).tolist() == [2, 2, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32]
    assert (Ladder().gate_min, Ladder().gate_max) == (0.5, 5.5)


@settings(deadline=None)
@given(ladders)
def test_gate_of_is_inverse(ladder):
    for width in ladder.widths:
        gate = ladder.gate_of(width)
        assert ladder.widths_of(np.array(gate, np.float32)) == width
        assert ladder.gate_min <= gate <= ladder.gate_max
    assert ladder.widths_of(np.array(ladder.gate_max, np.float32)) == ladder.widths[-1]
    assert ladder.widths_of(np.array(ladder.gate_min, np.float32)) == ladder.widths[0]


@settings(deadline=None)
@given(ladders, gates, gates)
def test_widths_grow_with_the_gate(ladder, a, b):
    narrow, wide = ladder.widths_of(np.array(sorted((a, b)), np.float32))
    assert narrow <= wide
    assert {int(narrow), int(wide)} <= set(ladder.widths)


@settings(deadline=None)
@given(ladders, gates)
def test_thresholds_select_the_same_width(ladder, gate):
    """The comparison chain of the ONNX function and ``widths_of`` can't disagree."""
    by_threshold = next(width for width in ladder.widths if gate <= ladder.threshold(width))
    assert ladder.widths_of(np.array(gate, np.float32)) == by_threshold


@settings(deadline=None)
@given(ladders)
def test_thresholds_rise(ladder):
    thresholds = [ladder.threshold(width) for width in ladder.widths]
    assert thresholds == sorted(set(thresholds))
    assert thresholds[-1] == np.inf


def test_parts():
    ladder = Ladder((0, 2, 8, 32))
    assert ladder.prunes
    assert ladder.nonzero == (2, 8, 32)
    assert ladder.quantized == (2, 8)


@pytest.mark.parametrize("widths", [(), (0,), (4, 2), (2, 2), (3,), (2, 64)])
def test_bad_ladders(widths):
    with pytest.raises(ValueError, match="must be"):
        Ladder(widths)
