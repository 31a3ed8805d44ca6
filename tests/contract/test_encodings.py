from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.aimet import from_aimet, to_aimet
from onnx_cgmq.contract.bits import Granularity, GridForm, Role
from onnx_cgmq.contract.encodings import Encoding, encodings_of, largest_code, smallest_code
from onnx_cgmq.contract.plan import BitPlan, TensorPlan
from onnx_cgmq.contract.tensor_overrides import from_overrides, to_overrides
from tests.support.plans import FIXED_FORMS

FORMS = {Role.WEIGHT: [GridForm.SYMMETRIC], Role.ACTIVATION: FIXED_FORMS}


@st.composite
def encodings(draw, widths=(2, 4, 8, 16)):
    role = draw(st.sampled_from([Role.WEIGHT, Role.ACTIVATION]))
    width = draw(st.sampled_from(widths))
    form = draw(st.sampled_from(FORMS[role]))
    channels = draw(st.integers(1, 4)) if role is Role.WEIGHT and draw(st.booleans()) else None
    steps = st.floats(2.0**-20, 1024, width=32)
    count = channels or 1
    step = np.array(draw(st.lists(steps, min_size=count, max_size=count)), np.float32)
    zero = np.zeros(count, np.int64)
    if form is GridForm.AFFINE:
        zero[:] = draw(st.integers(1, 2**width - 1))  # an affine grid that starts at 0 is unsigned
    shape = () if channels is None else (-1,)
    return Encoding(
        role=role,
        width=width,
        form=form,
        step=step.reshape(shape),
        zero_point=zero.reshape(shape),
        axis=None if channels is None else 0,
    )


def assert_same(one: Encoding, other: Encoding, *fields: str) -> None:
    assert (one.width, one.form) == (other.width, other.form)
    for array in ("step", "zero_point"):
        mine, theirs = getattr(one, array), getattr(other, array)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    for field in fields:
        assert getattr(one, field) == getattr(other, field)


def as_0_6_1(text: str) -> dict:
    """Encodings of version 1.0.0 as AIMET writes them in version 0.6.1."""
    fields = json.loads(text)
    old = {"version": "0.6.1"}
    for group in ("activation_encodings", "param_encodings"):
        old[group] = {
            entry["name"]: [
                {
                    "bitwidth": entry["bw"],
                    "dtype": "int",
                    "is_symmetric": str(entry["is_sym"]),
                    "scale": scale,
                    "offset": offset,
                }
                for scale, offset in zip(entry["scale"], entry["offset"], strict=True)
            ]
            for entry in fields[group]
        }
    return old


@settings(deadline=None)
@given(encodings())
def test_aimet_gives_back_what_it_was_given(encoding) -> None:
    text = to_aimet({"t": encoding})
    for fields in (json.loads(text), as_0_6_1(text)):
        if encoding.step.shape == (1,) and fields["version"] == "0.6.1":
            continue  # which does not tell one channel from one step
        assert_same(from_aimet(fields)["t"], encoding, "role")


@settings(deadline=None)
@given(encodings(widths=(4, 8, 16)))
def test_overrides_give_back_what_they_were_given(encoding) -> None:
    text, _ = to_overrides({"t": encoding})
    assert_same(from_overrides(json.loads(text))["t"], encoding, "axis")


def test_floats_are_what_aimet_does_not_name() -> None:
    text = to_aimet({"f": Encoding(role=Role.WEIGHT, width=32)})
    assert from_aimet(json.loads(text)) == {}


def test_overrides_say_what_they_can_not_say() -> None:
    step = np.float32(0.5)
    floats = Encoding(role=Role.WEIGHT, width=32)
    signed = Encoding(role=Role.ACTIVATION, width=8, step=step)
    text, notes = to_overrides({"f": floats, "s": signed})
    assert set(json.loads(text)) == {"s"}
    assert ["'f' stay float" in notes[0], "'s'" in notes[1]] == [True, True]
    with pytest.raises(ValueError, match=r"'w' of 2 bits.*export as aimet"):
        to_overrides({"w": Encoding(role=Role.WEIGHT, width=2, step=step)})
    channels = Encoding(role=Role.WEIGHT, width=8, step=[1, 2], zero_point=[0, 0])
    with pytest.raises(ValueError, match="'w' has channels, but nothing says on which axis"):
        to_overrides({"w": channels})


def tensor(name, role=Role.WEIGHT, widths=8, granularity=Granularity.TENSOR, **changes):
    widths = np.array(widths)
    fields = {
        "name": name,
        "role": role,
        "form": GridForm.SYMMETRIC,
        "granularity": granularity,
        "shape": (2, 3),
        "axis": 0,
        "widths": widths,
        "low": -1.0,
        "high": 1.0,
        "step": np.where((widths > 0) & (widths < 32), 0.5, 0),
        "zero_point": np.zeros(widths.shape, np.int64),
    }
    return TensorPlan(**(fields | changes))


def test_a_plan_becomes_encodings_and_notes() -> None:
    mixed = tensor("m", widths=[[2], [8]], granularity=Granularity.CHANNEL)
    pruned = tensor("p", widths=[[0], [4]], granularity=Granularity.CHANNEL)
    ranges = tensor("r", step=[[0.5], [0.25]], zero_point=[[0], [0]])
    bias = tensor("b", Role.BIAS, widths=8)
    plan = BitPlan(
        tensors={t.name: t for t in (mixed, pruned, ranges, bias, tensor("f", widths=32))}
    )
    found, notes = encodings_of(plan)
    assert {name: encoding.width for name, encoding in found.items()} == {
        "m": 8, "p": 4, "r": 8, "f": 32
    }  # fmt: skip
    np.testing.assert_array_equal(found["p"].step, [1, 0.5])
    np.testing.assert_array_equal(found["r"].step, [0.5, 0.25])
    assert found["r"].axis == 0
    assert "'b' left out" in notes[0]
    assert "'m', 'p'" in notes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": [[2, 4, 8]] * 2, "granularity": Granularity.ELEMENT}, "each element"),
        ({"widths": [[8], [32]], "granularity": Granularity.CHANNEL}, "widths 8, 32"),
        ({"widths": 0}, "widths 0"),
        (
            {"role": Role.ACTIVATION, "widths": [[4], [8]], "granularity": Granularity.CHANNEL},
            "activation 't' has a width for each channel",
        ),
    ],
)
def test_what_no_encoding_can_say_is_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=f"'t'.*{message}|{message}"):
        encodings_of(BitPlan(tensors={"t": tensor("t", **changes)}))


@pytest.mark.parametrize("form", FIXED_FORMS)
def test_codes_are_those_of_the_grid(form) -> None:
    encoding = Encoding(role=Role.ACTIVATION, width=4, form=form, step=1.0)
    ends = int(smallest_code(encoding)), int(largest_code(encoding))
    assert ends == ((-7, 7) if form is GridForm.SYMMETRIC else (0, 15))


ENTRY = {
    "name": "t", "enc_type": "PER_TENSOR", "dtype": "INT", "bw": 8, "is_sym": False,
    "scale": [0.5], "offset": [-3],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bw": 12}, "12 bits; onnx-cgmq has 2, 4, 8, 16, 32"),
        ({"scale": [0.0]}, "a step is not a positive number"),
        ({"scale": [float("nan")]}, "a step is not a positive number"),
        ({"scale": [1, 2]}, "reshape"),
        ({"scale": "half"}, "half"),
        ({"scale": None}, "a step is not a positive number"),
        ({"offset": [1]}, "leaves zero out of the grid"),
        ({"offset": [-2.5]}, "not a whole number"),
        ({"zero_point_shift": 0.5}, "not a whole number"),
        ({"is_sym": "yes"}, "is_sym is 'yes'"),
        ({"enc_type": "LPBQ"}, "INT LPBQ, which onnx-cgmq does not have"),
        ({"dtype": "FLOAT", "bw": 8}, "floats of 8 bits"),
        ({"bw": [8]}, "bits"),
    ],
)
def test_an_encoding_of_aimet_that_makes_no_sense_is_named(change, message) -> None:
    fields = {"version": "1.0.0", "activation_encodings": [ENTRY | change], "param_encodings": []}
    with pytest.raises(ValueError, match=f"tensor 't': .*{message}"):
        from_aimet(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": "2.0.0", "encodings": []}, "version '2.0.0'.*export them with"),
        ({"activation_encodings": []}, "version None"),
        ({"version": "1.0.0", "param_encodings": {}}, "a list of encodings"),
        ({"version": "1.0.0", "param_encodings": [{"bw": 8}]}, "has no name"),
        ({"version": "1.0.0", "param_encodings": [{"name": "t"}]}, "'t': it has no 'bw'"),
        ({"version": "1.0.0", "param_encodings": [ENTRY, ENTRY]}, "two encodings"),
        ({"version": "0.6.1", "param_encodings": []}, "an object of tensor names"),
        ({"version": "0.6.1", "param_encodings": {"t": []}}, "not a list of channels"),
        ({"version": "0.6.1", "param_encodings": {"t": [{}]}}, "lacks 'dtype'"),
    ],
)
def test_a_file_of_aimet_that_makes_no_sense_is_refused(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        from_aimet(fields)


def test_the_signed_type_of_aimet_has_one_code_more() -> None:
    entry = ENTRY | {"is_sym": True, "offset": [-128]}
    found = from_aimet({"version": "1.0.0", "activation_encodings": [entry]})["t"]
    assert (int(smallest_code(found)), int(largest_code(found))) == (-128, 127)


@pytest.mark.parametrize(
    ("override", "grid"),
    [
        ({"quant_type": "QUInt8", "rmin": -1.0, "rmax": 1.55}, (GridForm.AFFINE, 0.01, 100)),
        ({"quant_type": "QUInt8", "rmin": 0.5, "rmax": 2.55}, (GridForm.UNSIGNED, 0.01, 0)),
        ({"quant_type": "QInt8", "scale": 0.5, "zero_point": -28}, (GridForm.AFFINE, 0.5, 100)),
        (
            {"quant_type": "QuantType.QInt8", "rmin": -1.275, "rmax": 0, "symmetric": True},
            (GridForm.SYMMETRIC, 0.01, 0),
        ),
    ],
)
def test_overrides_of_others_are_read(override, grid) -> None:
    found = from_overrides({"t": [override]})["t"]
    assert (found.form, round(float(found.step), 6), int(found.zero_point)) == grid


def test_an_override_may_give_the_type_alone_or_nothing() -> None:
    found = from_overrides({"t": [{"quant_type": "QInt4"}], "r": [{"reduce_range": True}], "e": []})
    assert {name: (e.width, e.step) for name, e in found.items()} == {"t": (4, None)}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"quant_type": "QUInt8", "convert": {}}], "'convert' can't be taken over"),
        ([{"scale": 1.0, "zero_point": 0}], "no quant_type"),
        ([{"quant_type": "QFLOAT8E4M3FN"}], "QFLOAT8E4M3FN"),
        ([{"quant_type": "QInt8", "axis": "0"}], "an axis of '0'"),
        ([{"quant_type": "QInt8", "axis": 0}, {"quant_type": "QInt4"}], "different types"),
        ([{"quant_type": "QUInt8", "scale": 1.0, "zero_point": 300}], "a zero point that QUInt8"),
        ([{"quant_type": "QUInt8", "scale": 1.0, "zero_point": 0.5}], "no whole number"),
        ([{"quant_type": "QUInt8", "scale": -1.0, "zero_point": 0}], "not a positive number"),
        ([{"quant_type": "QUInt8", "scale": 1.0}], "zero_point"),
        ([{"quant_type": "QInt8", "axis": 0, "scale": 1.0, "zero_point": 0}, {}], "only some"),
        ("QInt8", "not a list of objects"),
    ],
)
def test_an_override_that_makes_no_sense_is_named(entries, message) -> None:
    with pytest.raises(ValueError, match=f"tensor 't': .*{message}"):
        from_overrides({"t": entries})
