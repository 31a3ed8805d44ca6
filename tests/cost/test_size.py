from __future__ import annotations

import numpy as np

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.cost.size import Storage
from onnx_cgmq.writing.storage import WeightTypes


def spec(name, role, shape, granularity=Granularity.ELEMENT) -> QuantizerSpec:
    form = GridForm.UNSIGNED if role is Role.ACTIVATION else GridForm.SYMMETRIC
    return QuantizerSpec(name, role, form, granularity, Ladder(), shape, 0)


NEWEST = Storage()


def test_a_weight_is_stored_on_its_widest_grid() -> None:
    weight = spec("w", Role.WEIGHT, (3, 5))
    widths = np.full((3, 5), 2)
    assert NEWEST.stored_bits(weight, widths) == 30
    widths[1, 2] = 8
    assert NEWEST.stored_bits(weight, widths) == 120


def test_older_opsets_lack_the_narrow_types() -> None:
    weight, widths = spec("w", Role.WEIGHT, (3, 5)), np.full((3, 5), 2)
    assert Storage(WeightTypes(23)).stored_bits(weight, widths) == 60
    assert Storage(WeightTypes(20)).stored_bits(weight, widths) == 120


def test_pruned_weights_take_the_narrowest_type() -> None:
    pruned = np.zeros((3, 5), dtype=np.int64)
    assert NEWEST.stored_bits(spec("w", Role.WEIGHT, (3, 5)), pruned) == 30


def test_biases_take_32_bits_and_activations_none() -> None:
    assert NEWEST.stored_bits(spec("b", Role.BIAS, (5,)), np.full(5, 2)) == 160
    assert NEWEST.stored_bits(spec("x", Role.ACTIVATION, (1, 5)), np.full((1, 5), 2)) == 0


def test_totals_are_whole_bytes_per_tensor() -> None:
    specs = {
        "w": spec("w", Role.WEIGHT, (3, 5)),
        "b": spec("b", Role.BIAS, (5,)),
        "x": spec("x", Role.ACTIVATION, (1, 5)),
    }
    widths = {"w": np.array(2)}
    assert NEWEST.tensor_bytes(specs, widths) == {"w": 4, "b": 20}
    assert NEWEST.total_bytes(specs, widths) == 24
    assert Storage(ungated=100).total_bytes(specs, {}) == 180
