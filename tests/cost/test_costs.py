"""The laws that all costs keep; the guarantee rests on them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Granularity
from onnx_cgmq.cost.bound import CostKind
from onnx_cgmq.cost.model import CostModel
from tests.support.costs import GRAPHS, gated, product_table, random_widths, tables

CASES = {
    "graph": st.sampled_from(list(GRAPHS)),
    "granularity": st.sampled_from(list(Granularity)),
    "kind": st.sampled_from(list(CostKind)),
    "table": tables(),
    "seed": st.integers(0, 10_000),
}


def costed(graph, granularity, kind, table, seed):
    model = CostModel.of(gated(graph, granularity=granularity), table)
    return model, model.cost(kind), random_widths(model, seed)


def moved(model, widths, seed, share):
    """Some gates one step wider."""
    rng = np.random.default_rng(seed)
    wider = {}
    for name, array in widths.items():
        ladder = np.array(model.specs[name].ladder.widths)
        up = ladder[np.minimum(np.searchsorted(ladder, array) + 1, len(ladder) - 1)]
        wider[name] = np.where(rng.random(array.shape) < share, up, array)
    return wider


@settings(max_examples=30, deadline=None, derandomize=True)
@given(**CASES, share=st.floats(0, 1))
def test_more_bits_never_cost_less(graph, granularity, kind, table, seed, share) -> None:
    model, cost, widths = costed(graph, granularity, kind, table, seed)
    wider = moved(model, widths, seed + 1, share)
    assert cost.total(widths) <= cost.total(wider) <= cost.whole


@settings(max_examples=25, deadline=None, derandomize=True)
@given(**CASES)
def test_growth_is_the_difference_of_costs(graph, granularity, kind, table, seed) -> None:
    model, cost, widths = costed(graph, granularity, kind, table, seed)
    wider = moved(model, widths, seed, 2.0)
    growth, before = cost.growth(widths, wider), cost.total(widths)
    rng = np.random.default_rng(seed)
    for name in widths:
        index = tuple(int(rng.integers(size)) for size in widths[name].shape)
        one = {**widths, name: np.array(widths[name])}
        one[name][index] = wider[name][index]
        expected = float(cost.total(one) - before)
        found = float(growth[name][index]) if name in growth else 0.0
        if kind is CostKind.ACTIVATIONS:  # rounded up to bytes
            assert abs(found - expected) < 1
        else:
            assert found == pytest.approx(expected)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(**CASES)
def test_above_the_minimum_some_gate_saves(graph, granularity, kind, table, seed) -> None:
    model, cost, widths = costed(graph, granularity, kind, table, seed)
    narrowest = {n: np.full_like(a, model.specs[n].ladder.widths[0]) for n, a in widths.items()}
    least = cost.total(narrowest)
    if cost.total(widths) == least:
        return
    lower = {}
    for name, array in widths.items():
        ladder = np.array(model.specs[name].ladder.widths)
        lower[name] = ladder[np.maximum(np.searchsorted(ladder, array) - 1, 0)]
    saving = cost.saving(widths, widths, lower, least)
    assert all((array >= 0).all() for array in saving.values())
    assert any(array.any() for array in saving.values())
    idle = {name: array[widths[name] == lower[name]] for name, array in saving.items()}
    assert not any(array.any() for array in idle.values())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(graph=CASES["graph"], granularity=CASES["granularity"], seed=CASES["seed"])
def test_bits_times_bits_as_a_table_are_bit_operations(graph, granularity, seed) -> None:
    model = CostModel.of(gated(graph, granularity=granularity), product_table())
    widths = random_widths(model, seed)
    bops, table = model.cost(CostKind.BOPS), model.cost(CostKind.TABLE)
    assert table.total(widths) == bops.total(widths)
    assert table.whole == bops.whole
    wider = moved(model, widths, seed, 2.0)
    for name, growth in bops.growth(widths, wider).items():
        np.testing.assert_allclose(table.growth(widths, wider)[name], growth)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (CostKind.BOPS, r"the nodes conv1 \(71%: x x k1\)"),
        (CostKind.SIZE, "the tensors k2"),
        (CostKind.TABLE, r"the nodes conv1 \(71%: x x k1\)"),
        (CostKind.ACTIVATIONS, "the tensors p .*needed at the same time"),
    ],
)
def test_what_dominates_is_named(kind, words) -> None:
    model = CostModel.of(gated("convnet"), product_table())
    widths = {name: np.array(8) for name in model.specs}
    assert re.match(words, model.cost(kind).dominated_by(widths))
