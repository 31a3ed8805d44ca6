"""Costs of tiny convolutions: what is measured is the table of a target; not speed itself."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.api import measured_costs
from onnx_cgmq.api.measured_costs import Layer, measure_costs
from onnx_cgmq.errors import ConfigError

FAST = {"rounds": 1, "layer": Layer(channels=4, size=6)}


def test_a_table_has_the_widths_of_its_target() -> None:
    lines = []
    table = measure_costs(progress=lines.append, **FAST)
    assert table.unit == "ns"
    assert (tuple(table.weights), table.activations) == ((2, 4, 8), (8,))
    assert 0 < table.price(2, 8) <= table.price(8, 8) <= table.float
    assert lines == [
        "writing a layer of 2-bit weights and 8-bit activations",
        "writing a layer of 4-bit weights and 8-bit activations",
        "writing a layer of 8-bit weights and 8-bit activations",
        "timing 4 files in 1 rounds",
    ]


def test_given_widths_go_before_those_of_the_target() -> None:
    table = measure_costs("generic", widths=(16, 4), activation_widths=(4, 32), **FAST)
    assert (tuple(table.weights), table.activations) == ((4, 16), (4,))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"widths": (16,)}, "target 'ort-cpu' has no weights of 16 bits"),
        ({"widths": (32,)}, "weights: no width below 32 bits"),
        ({"rounds": 0}, "rounds 0: it must be at least 1"),
        ({"target": "ort-gpu"}, "there is no target 'ort-gpu'"),
    ],
)
def test_refused(settings, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        measure_costs(**{**FAST, **settings})


def test_the_table_is_monotone() -> None:
    table = measured_costs._table((2, 4), (4, 8), 1.0, np.array([[0.5, 0.4], [0.3, 2.0]]))
    assert table.to_toml().splitlines()[2:] == [
        "float = 2",
        "activations = [4, 8]",
        "[cost.weights]",
        "2 = [0.5, 0.5]",
        "4 = [0.5, 2]",
    ]
