from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Granularity
from onnx_cgmq.cost.bound import CostKind
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.errors import BoundError
from tests.support.costs import gated, product_table


def test_every_figure_of_a_plan() -> None:
    model = CostModel.of(gated("mlp"), product_table())
    cost = model.plan_cost({name: np.array(8) for name in model.specs}, peak=True)
    assert cost.macs == 8 * 12 + 12 * 3
    assert cost.bops == cost.table_cost == 64 * cost.macs
    assert cost.rbop == 64 / 1024
    assert cost.table_unit == "BOP"
    assert cost.weight_bytes == cost.macs + 4 * 15
    assert cost.bops_by_node == {"first": 64 * 96, "last": 64 * 36}
    assert cost.peak_activation_bytes == 12 + 3 * 4  # r at 8 bits, y as floats


def test_figures_that_nobody_asked_for_are_missing() -> None:
    model = CostModel.of(gated("mlp"))
    cost = model.plan_cost({name: np.array(8) for name in model.specs})
    assert cost.peak_activation_bytes is cost.table_cost is cost.table_unit is None
    assert model.cost(CostKind.TABLE) is None


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("0.39%", r"smallest is 528 bit operations \('0\.391%'\), mostly by .*first \(73%: x x w1"),
        ("60 B", r"smallest is 93 bytes of weights \('size:\d+\.\d%'\), mostly by the tensors b1"),
        ("cost:500", r"smallest is 528 BOP \('cost:0\.391%'\), mostly by the nodes first"),
        (
            "activations:14B",
            r"smallest is 15 bytes of activations \('activations:.*without a",
        ),
    ],
)
def test_a_bound_below_the_minimum_is_refused_with_the_minimum(bound, message) -> None:
    model = CostModel.of(gated("mlp"), product_table())
    with pytest.raises(BoundError, match=f"below what is possible: the {message}"):
        model.budget(bound).check_feasible()
    with pytest.raises(BoundError, match=re.escape(repr(bound))):
        model.budget(("100%", bound)).check_feasible()


def test_all_that_can_not_be_kept_are_named() -> None:
    model = CostModel.of(gated("mlp"))
    with pytest.raises(BoundError, match=r"'0\.1%' is below.*; bound '9B' is below"):
        model.budget("0.1%, 50%, 9B").check_feasible()


def test_a_table_is_needed_for_its_bounds() -> None:
    with pytest.raises(BoundError, match="needs a target with a cost table"):
        CostModel.of(gated("mlp")).budget("cost:3")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    granularity=st.sampled_from(list(Granularity)),
    widths=st.sampled_from([(2,), (4, 8), (2, 4, 8, 16, 32), (8, 32)]),
    kind=st.sampled_from(["{}%", "size:{}%", "cost:{}%", "activations:{}%"]),
    share=st.floats(0.01, 20),
)
def test_the_smallest_bound_named_is_feasible(granularity, widths, kind, share) -> None:
    settings = {"granularity": granularity, "widths": widths, "integer_kernels": False}
    model = CostModel.of(gated("convnet", **settings), product_table())
    budget = model.budget(kind.format(f"{share:.4f}"))
    (smallest,), assignment = budget.minimum()
    assert budget.costs(assignment) == (smallest,)
    if budget.keeps((smallest,)):
        budget.check_feasible()
        return
    with pytest.raises(BoundError) as refusal:
        budget.check_feasible()
    named = str(refusal.value).split("('")[1].split("')")[0]
    model.budget(named).check_feasible()
