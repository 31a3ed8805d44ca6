from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Granularity, Role
from onnx_cgmq.cost.bound import CostKind
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.cost.table import macs_by_pair, price_of
from onnx_cgmq.settings.cost_table import CostTable
from tests.support.costs import gated, product_table, random_widths, tables


def bits_of(widths, name, shape):
    return np.broadcast_to(widths[name], shape)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(granularity=st.sampled_from(list(Granularity)), seed=st.integers(0, 1000), table=tables())
def test_every_multiply_accumulate_counts_with_its_own_pair(granularity, seed, table) -> None:
    """Against a plain loop over the MACs of two matrix products."""
    model = CostModel.of(gated("mlp", granularity=granularity), table)
    widths = random_widths(model, seed)
    pairs: dict[tuple[int, int], int] = {}
    for x, w in (("x", "w1"), ("r", "w2")):
        a = bits_of(widths, x, model.specs[x].shape)
        b = bits_of(widths, w, model.specs[w].shape)
        for column in range(b.shape[1]):
            for row in range(b.shape[0]):
                pair = (int(b[row, column]), int(a[0, row]))
                pairs[pair] = pairs.get(pair, 0) + 1
    weights = {name for name, spec in model.specs.items() if spec.role is Role.WEIGHT}
    assert macs_by_pair(model.ops, widths, weights) == dict(sorted(pairs.items()))
    expected = sum(table.price(*pair) * count for pair, count in pairs.items())
    assert model.cost(CostKind.TABLE).total(widths) == expected


def test_the_second_of_two_activations_counts_as_the_weight() -> None:
    table = CostTable(unit="u", float=9, activations=(4, 8), weights={4: (1, 2), 8: (4, 8)})
    model = CostModel.of(gated("product"), table)
    widths = {name: np.array(4) for name in model.specs} | {"a": np.array(8)}
    assert macs_by_pair(model.ops, widths, {"q", "k"}) == {(4, 4): 72, (4, 8): 27}
    assert price_of({(4, 4): 72, (4, 8): 27}, table) == 72 + 54


def test_a_step_without_gain_leads_to_one_with() -> None:
    table = CostTable(unit="u", float=10, activations=(8,), weights={2: (1,), 4: (5,), 8: (5,)})
    model = CostModel.of(gated("mlp", widths=(2, 4, 8), activation_widths=(8,)), table)
    cost = model.cost(CostKind.TABLE)
    widths = {name: np.array(8) for name in model.specs}
    lower = {**widths, "w1": np.array(4)}
    assert cost.total(lower) == cost.total(widths)
    saving = cost.saving(widths, widths, lower, 0)
    assert saving["w1"] == 8 * 12 * (5 - 1) / 2
    assert saving["w2"] == 0


def test_prices_are_exact_and_narrow_between_widths() -> None:
    table = CostTable(unit="ms", float=0.3, activations=(4, 8), weights={4: (0.1, 0.2)})
    assert table.price(4, 4) * 3 == Fraction(3, 10)
    assert table.price(2, 2) == table.price(4, 4)
    assert table.price(8, 4) == table.price(4, 16) == table.price(32, 32) == Fraction(3, 10)
    assert table.price(0, 32) == table.price(4, 0) == 0
    assert price_of({(4, 4): 10, (4, 8): 10}, table) == 3
    assert product_table().price(2, 32) == 64
