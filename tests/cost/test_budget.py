from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.errors import BoundError
from onnx_cgmq.gating.insert import insert_gates
from tests.support.costs import gated


@pytest.fixture(scope="module")
def model() -> CostModel:
    return CostModel.of(gated("mlp"))


def widths_of(model: CostModel, bits: int) -> dict[str, np.ndarray]:
    return {name: np.array(bits) for name in model.specs}


def test_bounds_are_kept_together(model) -> None:
    budget = model.budget(("7%", "300B"))
    wide, narrow = widths_of(model, 8), widths_of(model, 4)
    assert budget.text == "7%, 300B"
    assert budget.costs(narrow) == (16 * 132, 66 + 60)
    assert budget.holds(wide)
    assert budget.holds(narrow)
    mixed = {**narrow, "w1": np.array(16), "w2": np.array(16)}  # 6.25 %, but 324 bytes
    assert budget.costs(mixed)[0] <= budget.bounds[0].limit
    assert not budget.holds(mixed)
    assert not budget.keeps(budget.costs(mixed))
    assert budget.ratio(budget.costs(mixed)) == 324 / 300


def test_a_single_bound_has_the_price_1(model) -> None:
    budget = model.budget("5%")
    for bits in (2, 8, 32):
        assert budget.prices(budget.costs(widths_of(model, bits))) == (1.0,)


def test_only_broken_bounds_have_a_price(model) -> None:
    budget = model.budget(("5%", "2%", "1MB"))
    limits = [float(bound.limit) for bound in budget.bounds]
    prices = budget.prices(budget.costs(widths_of(model, 8)))
    assert prices == (1.0, limits[0] / limits[1], 0.0)
    widths = widths_of(model, 8)
    narrower = {**widths, "w1": np.array(4), "b1": np.array(4)}
    saving = budget.saving(prices, widths, widths, narrower)
    assert set(saving) == {"x", "w1", "r", "w2"}
    assert saving["w1"] == pytest.approx(96 * 8 * 4 * (1 + limits[0] / limits[1]))


def test_the_less_is_left_of_a_bound_the_higher_its_price(model) -> None:
    widths = widths_of(model, 4)
    bops, size = model.budget("100%, 1MB").costs(widths)
    budget = model.budget((f"{bops + 100}BOP", f"{size + 10}B"))
    assert budget.prices(budget.costs(widths)) == (1.0, 10.0)
    used_up = model.budget((f"{bops}BOP", "1MB"))
    first, far = used_up.prices(used_up.costs(widths))
    assert (first, far < 1e-3) == (1.0, True)


def test_a_wider_gate_must_fit_all_bounds(model) -> None:
    widths, wider = widths_of(model, 4), widths_of(model, 8)
    bops, size = model.budget("100%, 1MB").costs(widths)
    budget = model.budget((f"{bops + 1_000_000}BOP", f"{size + 20}B"))
    growth, fits = budget.growth(budget.costs(widths), widths, wider)
    assert {name: bool(mask) for name, mask in fits.items()} == {
        "x": True,
        "w1": False,  # 48 bytes more
        "r": True,
        "w2": True,  # 18 bytes more
    }
    assert set(growth) == set(fits)


def test_a_refusal_says_what_no_widths_save() -> None:
    """The nodes of a subgraph, and the constants that they read, stay float."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[n, 2] x, bool c) => (float[n, 2] y) {
            h = MatMul(x, w)
            y = If(c) <
                then_branch = yes() => (float[n, 2] a) { [inner] a = MatMul(h, v) },
                else_branch = no() => (float[n, 2] b) { b = Identity(h) }
            >
        }"""
    )
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), name) for name in ("w", "v")
    )
    costs = CostModel.of(insert_gates(model))
    with pytest.raises(BoundError) as refused:
        costs.budget("25%, size:40%").check_feasible()
    assert str(refused.value) == (
        "bound '25%' is below what is possible: the smallest is 4,112 bit operations ('50.2%'), "
        "mostly by the nodes inner (100%: h x v), MatMul_h (0%: x x w), and no widths save 4,096 "
        "bit operations of it; bound 'size:40%' is below what is possible: the smallest is "
        "17 bytes of weights ('size:53.2%'), mostly by the tensors without a quantizer (94%), w "
        "(6%), and no widths save any of it; raise the bound"
    )


def test_a_refusal_advises_narrower_widths_where_they_would_do(model) -> None:
    with pytest.raises(BoundError, match="raise the bound, or allow narrower widths or pruning"):
        model.budget("0.3%").check_feasible()
