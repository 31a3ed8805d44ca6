from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.aimet import to_aimet
from onnx_cgmq.contract.bits import GridForm, Role, intervals
from onnx_cgmq.contract.encodings import Encoding, encodings_of, largest_code, smallest_code
from onnx_cgmq.contract.given_plan import given_plan
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.learn.given_ranges import range_of, start_from
from onnx_cgmq.learn.guide import Guide
from tests.support.plans import FIXED_FORMS
from tests.support.toys import convnet, gated_mirror

SETTINGS = {"target": "onnxruntime"}


@settings(deadline=None)
@given(
    width=st.sampled_from([2, 4, 8, 16]),
    form=st.sampled_from(FIXED_FORMS),
    step=st.floats(2.0**-20, 1024, width=32),
    data=st.data(),
)
def test_a_range_has_the_step_of_its_encoding(width, form, step, data) -> None:
    zero = data.draw(st.integers(0, 2**width - 1)) if form is GridForm.AFFINE else 0
    encoding = Encoding(role=Role.ACTIVATION, width=width, form=form, step=step, zero_point=zero)
    low, high = range_of(encoding, form)
    np.testing.assert_allclose((high - low) / intervals(width, form), step, rtol=1e-6)
    if form is GridForm.AFFINE:
        assert round(float(-low / step)) == zero


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("form", FIXED_FORMS)
@pytest.mark.parametrize("other", FIXED_FORMS)
def test_a_range_of_another_form_covers_the_values(width, form, other) -> None:
    zero = 3 if form is GridForm.AFFINE else 0
    encoding = Encoding(role=Role.ACTIVATION, width=width, form=form, step=0.5, zero_point=zero)
    low, high = range_of(encoding, other)
    assert high >= 0.5 * largest_code(encoding)
    if other is not GridForm.UNSIGNED:  # a tensor that is never negative
        assert low <= 0.5 * smallest_code(encoding)


def test_a_signed_type_is_no_reason_to_widen_a_symmetric_grid() -> None:
    signed = Encoding(role=Role.WEIGHT, width=8, form=GridForm.AFFINE, step=0.5, zero_point=128)
    assert range_of(signed, GridForm.SYMMETRIC)[1] == 0.5 * 255 / 2


@pytest.fixture(scope="module")
def learned():
    """The plan of a calibrated mirror with widths of 4 and 8 bits."""
    _, mirror, _ = gated_mirror(convnet(), **SETTINGS)
    guide = Guide(mirror, "100%")
    widths = guide.widths
    for name in ("k1", "k2", "p"):
        widths[name] = np.array(4)
    guide.set_widths(widths)
    return mirror.plan()


def test_a_mirror_that_starts_from_exported_encodings_has_the_plan(learned) -> None:
    encodings, _ = encodings_of(learned)
    _, mirror, _ = gated_mirror(convnet(1), **SETTINGS)  # with other weights, so other ranges
    start_from(Guide(mirror, "100%"), given_plan(json.loads(to_aimet(encodings))))
    plan = mirror.plan()
    for name, wanted in learned.tensors.items():
        tensor = plan.tensors[name]
        if tensor.role is Role.BIAS:
            continue
        np.testing.assert_array_equal(tensor.widths, wanted.widths, name)
        np.testing.assert_array_equal(tensor.zero_point, wanted.zero_point, name)
        if name in ("x", "p", "k1"):  # other steps leave room for pairs of the other weights
            np.testing.assert_allclose(tensor.step, wanted.step, rtol=3e-7, err_msg=name)


def test_ranges_of_other_widths_stay_calibrated(learned) -> None:
    encodings, _ = encodings_of(learned)
    _, mirror, _ = gated_mirror(convnet(), **SETTINGS)
    before = mirror.quantizers["p"].high.detach().clone()
    wider = encodings["p"].model_copy(update={"step": encodings["p"].step * 2})
    start_from(Guide(mirror, "100%"), given_plan(json.loads(to_aimet({"p": wider}))))
    after = mirror.quantizers["p"].high.detach()
    ladder = mirror.quantizers["p"].spec.ladder.quantized
    for index, width in enumerate(ladder):
        assert (after[index] == before[index]) == (width != 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 16}, "'k1' has 16 bits, but the run chooses from 2, 4, 8"),
        ({"step": [1, 2, 3], "zero_point": [0, 0, 0]}, "'k1' has 3 steps, but 4 channels"),
    ],
)
def test_what_a_tensor_can_not_have_is_an_error(change, message) -> None:
    _, mirror, _ = gated_mirror(convnet(), **SETTINGS)
    fields = {"role": Role.WEIGHT, "width": 8, "step": 1.0, "zero_point": 0} | change
    plan = given_plan(json.loads(to_aimet({"k1": Encoding(**fields)})))
    with pytest.raises(ConfigError, match=message):
        start_from(Guide(mirror, "100%"), plan)
