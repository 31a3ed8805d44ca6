from __future__ import annotations

import numpy as np

from onnx_cgmq.cost.activations import ActivationCost, peak_bytes
from onnx_cgmq.gating.live_sets import LiveSet

SETS = (LiveSet(32, {"x": 10, "y": 6}), LiveSet(0, {"y": 6, "z": 30}))


def test_peak_bytes_are_those_of_the_largest_set_in_whole_bytes() -> None:
    assert peak_bytes((), {}) == 0
    assert peak_bytes(SETS, {}) == 36 * 4
    narrow = {"y": np.array(2), "z": np.array(2), "x": np.array(2)}
    assert peak_bytes(SETS, narrow) == 9  # 72 bits; the first set has 64
    assert peak_bytes(SETS, {**narrow, "x": np.array(4)}) == 11  # 32 + 40 + 12 = 84 bits


def test_elements_count_with_their_own_widths() -> None:
    widths = {"z": np.array([[2, 4, 8]]), "y": np.array(2)}
    assert peak_bytes((LiveSet(0, {"z": 30, "y": 3}),), widths) == -(-(10 * 14 + 6) // 8)


def test_only_live_sets_over_the_limit_give_savings() -> None:
    cost = ActivationCost(SETS)
    widths = {name: np.array(8) for name in "xyz"}  # 160 and 288 bits
    lower = {name: np.array(4) for name in "xyz"}
    assert {n: float(s) for n, s in cost.saving(widths, widths, lower, 30).items()} == {
        "x": 0.0,
        "y": 3.0,
        "z": 15.0,
    }
    assert float(cost.saving(widths, widths, lower, 10)["x"]) == 5.0
    assert {n: float(s) for n, s in cost.saving(widths, widths, lower, 99).items()} == {
        "x": 0.0,
        "y": 3.0,
        "z": 15.0,
    }


def test_activations_outside_of_the_peak_grow_at_no_cost() -> None:
    cost = ActivationCost(SETS)
    widths = {name: np.array(8) for name in "xyz"}
    wider = {name: np.array(16) for name in "xyz"}
    growth = cost.growth(widths, wider)
    assert float(growth["x"]) == 0.0
    assert float(growth["z"]) == 30.0
