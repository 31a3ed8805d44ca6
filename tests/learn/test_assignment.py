"""Narrowing and widening always keep the bounds, in the order of importance per cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Granularity
from onnx_cgmq.cost.bound import Bound, CostKind
from onnx_cgmq.cost.budget import Budget
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.learn.assignment import Ladders, Widths, narrow_until, widen_within
from tests.support.costs import GRAPHS, gated, random_widths, tables


def _model(granularity: Granularity = Granularity.TENSOR, graph="mlp", table=None) -> CostModel:
    return CostModel.of(gated(graph, granularity=granularity), table)


def _ladders(model: CostModel) -> Ladders:
    return Ladders({name: spec.ladder.widths for name, spec in model.specs.items()})


def _bops(model: CostModel, limit: int) -> Budget:
    return model.budget(Bound(CostKind.BOPS, limit, ""))


def _all(model: CostModel, bits: int) -> Widths:
    return {n: np.full(s.gate_shape, bits, dtype=np.int64) for n, s in model.specs.items()}


@pytest.mark.slow
@given(
    graph=st.sampled_from(list(GRAPHS)),
    granularity=st.sampled_from(list(Granularity)),
    kinds=st.lists(st.sampled_from(list(CostKind)), min_size=1, max_size=4),
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    table=tables(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_all_bounds_are_kept_from_any_state(graph, granularity, kinds, shares, table, seed) -> None:
    model = _model(granularity, graph, table)
    widths = random_widths(model, seed)
    rng = np.random.default_rng(seed)
    weights = {name: rng.random(spec.gate_shape) for name, spec in model.specs.items()}
    narrowest = {n: np.full(s.gate_shape, s.ladder.widths[0]) for n, s in model.specs.items()}
    bounds = []
    for kind, share in zip(kinds, shares, strict=False):
        cost = model.cost(kind)
        least = cost.total(narrowest)
        bounds.append(Bound(kind, least + int(share * float(cost.float_cost - least)), kind.value))
    budget = model.budget(bounds)
    budget.check_feasible()

    def score(upper: Widths, lower: Widths) -> dict[str, np.ndarray]:
        return {name: weights[name] * (upper[name] - lower[name]) for name in upper}

    narrowed = narrow_until(budget, _ladders(model), widths, score)
    assert all(b.is_satisfied_by(model.cost(b.kind).total(narrowed)) for b in bounds)
    assert all((narrowed[name] <= widths[name]).all() for name in widths)
    widened = widen_within(budget, _ladders(model), narrowed, score, largest=8)
    assert all(b.is_satisfied_by(model.cost(b.kind).total(widened)) for b in bounds)
    assert all((widened[name] >= narrowed[name]).all() for name in widths)
    above = {name: (widened[name] > 8) & (narrowed[name] <= 8) for name in widths}
    assert not any(mask.any() for mask in above.values())


def test_the_least_important_gate_narrows_first_and_the_most_important_widens_first() -> None:
    model = _model()
    widths = _all(model, 8)
    value = dict.fromkeys(model.specs, 9.0) | {"w1": 1.0}

    def score(upper: Widths, lower: Widths) -> dict[str, np.ndarray]:
        return {name: np.array(value[name]) for name in upper}

    (limit,) = model.budget("100%").costs({**widths, "w1": np.array(4)})
    narrowed = narrow_until(_bops(model, limit), _ladders(model), widths, score)
    assert {name for name in widths if narrowed[name] != 8} == {"w1"}
    low = _all(model, 2)
    value = dict.fromkeys(model.specs, 0.0) | {"w2": 1.0}
    (limit,) = model.budget("100%").costs({**low, "w2": np.array(4)})
    widened = widen_within(_bops(model, limit), _ladders(model), low, score, largest=8)
    assert int(widened["w2"]) == 4


def test_narrow_until_keeps_widths_that_do_not_count_for_a_broken_bound() -> None:
    model = _model()
    widths = _all(model, 8)
    budget = model.budget(("100%", "activations:20B"))
    narrowed = narrow_until(budget, _ladders(model), widths, lambda upper, _: _ones(upper))
    assert {name for name in widths if narrowed[name] != 8} == {"r"}


def test_widen_within_leaves_less_than_the_cheapest_widening_costs() -> None:
    model = _model(Granularity.ELEMENT)
    low = _all(model, 2)
    (smallest,) = model.budget("100%").costs(low)
    limit = int(1.3 * smallest)
    budget = _bops(model, limit)
    widened = widen_within(budget, _ladders(model), low, lambda u, _: _ones(u), largest=8)
    target = _ladders(model).shifted(widened, +1, largest=8)
    growth = model.cost(CostKind.BOPS).growth(widened, target)
    cheapest = min(float(g[g > 0].min()) for g in growth.values() if (g > 0).any())
    (cost,) = budget.costs(widened)
    assert limit - cheapest < cost <= limit


def _ones(widths: Widths) -> dict[str, np.ndarray]:
    return {name: np.ones(array.shape) for name, array in widths.items()}


def test_shifted_widths_stay_on_their_ladder() -> None:
    ladders = Ladders({"a": (0, 2, 8), "b": (4,)})
    widths = {"a": np.array([0, 2, 8]), "b": np.array(4)}
    assert ladders.shifted(widths, -1)["a"].tolist() == [0, 0, 2]
    assert ladders.shifted(widths, +1)["a"].tolist() == [2, 8, 8]
    assert ladders.shifted(widths, +1, largest=2)["a"].tolist() == [2, 2, 8]
    assert int(ladders.shifted(widths, +1)["b"]) == 4


@pytest.mark.parametrize("granularity", list(Granularity))
def test_bounds_at_the_minimum_are_reached(granularity: Granularity) -> None:
    model = _model(granularity)
    costs, _ = model.budget("100%, size:100%, activations:100%").minimum()
    kinds = (CostKind.BOPS, CostKind.SIZE, CostKind.ACTIVATIONS)
    budget = model.budget([Bound(k, c, "") for k, c in zip(kinds, costs, strict=True)])
    widths = random_widths(model, 3)
    narrowed = narrow_until(budget, _ladders(model), widths, lambda u, _: _ones(u))
    assert budget.costs(narrowed) == costs


def test_without_any_score_all_tensors_narrow_alike() -> None:
    """Where nothing is known about the loss, no tensor goes to 2 bits while others have 32."""
    model = _model(graph="convnet")
    ladders, widths = _ladders(model), _all(model, 32)
    costs = model.cost(CostKind.BOPS)
    budget = _bops(model, int(costs.total(_all(model, 8))))
    none = {name: np.zeros(spec.gate_shape) for name, spec in model.specs.items()}
    narrowed = narrow_until(budget, ladders, widths, lambda upper, lower: none)
    counted = budget.growth(budget.costs(widths), widths, widths)[0]
    assert {int(narrowed[name].min()) for name in counted} == {8}
