from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydantic import ValidationError

from onnx_cgmq.contract.bits import Granularity, GridForm, Role
from onnx_cgmq.contract.plan import BitPlan, PlanCost, TensorPlan
from onnx_cgmq.errors import ModelError

COST = PlanCost(bops=10, rbop=0.01, macs=5, weight_bytes=3, bops_by_node={"conv": 10})


def tensor_plan(widths=4, shape=(3, 4), **changes) -> TensorPlan:
    fields = {
        "name": "w",
        "role": Role.WEIGHT,
        "form": GridForm.SYMMETRIC,
        "granularity": Granularity.TENSOR,
        "shape": shape,
        "widths": widths,
        "low": -0.5,
        "high": 0.5,
        "step": np.full(np.shape(widths), 0.1),
        "zero_point": 0,
    }
    return TensorPlan(**(fields | changes))


def plan(*tensors: TensorPlan) -> BitPlan:
    return BitPlan(bound="0.4%", tensors={t.name: t for t in tensors}, cost=COST)


def assert_same(a: BitPlan, b: BitPlan):
    assert (a.version, a.bound, a.cost, list(a.tensors)) == (
        b.version, b.bound, b.cost, list(b.tensors)
    )  # fmt: skip
    for one, other in zip(a.tensors.values(), b.tensors.values(), strict=True):
        for field in TensorPlan.model_fields:
            mine, theirs = getattr(one, field), getattr(other, field)
            if isinstance(mine, np.ndarray):
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)
            elif field != "values":
                assert mine == theirs


@settings(deadline=None)
@given(
    widths=npst.arrays(
        np.int64,
        npst.array_shapes(min_dims=0, max_dims=3, max_side=5),
        elements=st.sampled_from((0, 2, 4, 8, 16, 32)),
    ),
    seed=st.integers(0, 1000),
)
def test_json_round_trip(widths, seed):
    rng = np.random.default_rng(seed)
    step = rng.random(widths.shape).astype(np.float32)
    zero_point = rng.integers(0, 255, widths.shape)
    before = plan(tensor_plan(widths, widths.shape, step=step, zero_point=zero_point))
    assert_same(BitPlan.from_json(before.to_json()), before)
    assert_same(BitPlan.from_json(before.to_json(indent=None)), before)


@pytest.mark.parametrize("narrow", [True, False])
def test_large_arrays_are_packed(narrow, tmp_path):
    widths = np.random.default_rng(0).choice([2, 4, 8], (64, 64))
    zero_point = np.full((64, 64), 3 if narrow else -70000)
    before = plan(tensor_plan(widths, (64, 64), zero_point=zero_point))
    before.save(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").stat().st_size < 10_000
    assert_same(BitPlan.load(tmp_path / "plan.json"), before)


def test_json_is_readable():
    fields = json.loads(plan(tensor_plan([[2], [4], [8]])).to_json())
    assert fields["tensors"]["w"]["widths"] == [[2], [4], [8]]
    assert fields["tensors"]["w"]["role"] == "weight"
    assert fields["version"] == 1


def test_json_has_numbers_on_one_line_and_no_more_decimals_than_needed():
    text = plan(tensor_plan([[2], [4], [8]], step=np.full((3, 1), 0.1, np.float32))).to_json()
    assert '"widths": [[2], [4], [8]]' in text
    assert '"step": [[0.1], [0.1], [0.1]]' in text


def test_learned_values_stay_out_of_the_json():
    before = plan(tensor_plan(values=np.ones((3, 4), np.float32)))
    assert "values" not in json.loads(before.to_json())["tensors"]["w"]


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        tensor_plan().widths[...] = 8


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a bit plan"),
        ("[]", "version None"),
        ('{"version": 99}', "version 99; this onnx-cgmq reads version 1"),
        ('{"version": 1}', "invalid bit plan"),
    ],
)
def test_bad_json(text, reason):
    with pytest.raises(ModelError, match=reason):
        BitPlan.from_json(text)


def test_inconsistent_plans():
    with pytest.raises(ValidationError, match="must be 0, 2, 4, 8, 16 or 32"):
        tensor_plan(3)
    with pytest.raises(ValidationError, match=r"widths \(7,\) do not fit \(3, 4\)"):
        tensor_plan([2] * 7)


def test_derived_widths():
    mixed = tensor_plan([[2], [4], [0]])
    assert mixed.grid_width == 4
    assert mixed.mean_bits == 2
    assert not mixed.is_float
    assert tensor_plan(32).is_float
    assert tensor_plan(8, ()).mean_bits == 8
