"""Importance compared with brute force, standardised importance, and the sign of directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.learn.directions import (
    MIN_DIRECTION,
    gate_direction,
    importance,
    standardise,
    wanted_statistics,
)
from onnx_cgmq.learn.statistics import RunningStatistics
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.settings.config import Direction

SHAPE = (4, 6)


def _quantizer(granularity: Granularity, widths=(0, 2, 4, 8, 16, 32)) -> GatedQuantizer:
    axis = 0 if granularity is Granularity.CHANNEL else None
    spec = QuantizerSpec(
        "w", Role.WEIGHT, GridForm.SYMMETRIC, granularity, Ladder(widths), SHAPE, axis
    )
    gate = torch.full(spec.gate_shape, spec.ladder.gate_max)
    return GatedQuantizer(spec, None, torch.ones(spec.range_shape), gate)


def _values() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def _statistics(quantizer: GatedQuantizer, direction: Direction) -> RunningStatistics:
    statistics = RunningStatistics(quantizer.spec, wanted_statistics(direction, True))
    gradient = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    statistics.observe(_values(), gradient)
    return statistics


def _widths(quantizer: GatedQuantizer, width: int) -> torch.Tensor:
    return torch.full(quantizer.spec.gate_shape, width, dtype=torch.int64)


@pytest.mark.parametrize(("upper", "lower"), [(32, 16), (16, 8), (8, 4), (4, 2), (2, 0), (32, 2)])
def test_fisher_of_element_gates_is_the_expected_increase_of_the_loss(upper, lower) -> None:
    quantizer, values = _quantizer(Granularity.ELEMENT), _values()
    quantizer.fit(values)
    statistics = _statistics(quantizer, Direction.FISHER)
    quantized = []
    for width in (upper, lower):
        quantizer.set_gate(quantizer.gate_for(np.full(SHAPE, width)))
        quantized.append(quantizer(values)[0].detach())
    change = (quantized[0] - quantized[1]).square()
    found = importance(
        Direction.FISHER,
        quantizer,
        statistics,
        _widths(quantizer, upper),
        _widths(quantizer, lower),
        values,
    )
    torch.testing.assert_close(found, 0.5 * statistics.gradient_square * change)


def test_fisher_of_element_gates_takes_the_widths_of_each_element() -> None:
    quantizer, values = _quantizer(Granularity.ELEMENT), _values()
    quantizer.fit(values)
    statistics = _statistics(quantizer, Direction.FISHER)
    upper, lower = _widths(quantizer, 8), _widths(quantizer, 4)
    upper[0], lower[0] = 4, 2
    mixed = importance(Direction.FISHER, quantizer, statistics, upper, lower, values)
    for row, (wide, narrow) in enumerate([(4, 2), (8, 4)]):
        alone = importance(
            Direction.FISHER,
            quantizer,
            statistics,
            _widths(quantizer, wide),
            _widths(quantizer, narrow),
            values,
        )
        torch.testing.assert_close(mixed[row], alone[row])


@pytest.mark.parametrize("granularity", [Granularity.TENSOR, Granularity.CHANNEL])
@pytest.mark.parametrize(("upper", "lower"), [(32, 16), (8, 4), (4, 2)])
def test_fisher_of_shared_gates_takes_the_measured_error(granularity, upper, lower) -> None:
    quantizer, values = _quantizer(granularity, (2, 4, 8, 16, 32)), _values()
    quantizer.fit(values)
    statistics = _statistics(quantizer, Direction.FISHER)
    noise = []
    for width in (upper, lower):
        quantizer.set_gate(quantizer.gate_for(np.full(quantizer.spec.gate_shape, width)))
        error = (quantizer(values)[0].detach() - values).square()
        noise.append(error.mean() if granularity is Granularity.TENSOR else error.mean(1, True))
    found = importance(
        Direction.FISHER,
        quantizer,
        statistics,
        _widths(quantizer, upper),
        _widths(quantizer, lower),
        values,
    )
    assert found.shape == quantizer.spec.gate_shape
    expected = 0.5 * statistics.gradient_square * (noise[1] - noise[0])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-9)
    assert (found > 0).all()


def test_pruning_a_channel_costs_more_than_two_bits() -> None:
    quantizer, values = _quantizer(Granularity.CHANNEL), _values()
    quantizer.fit(values)
    statistics = _statistics(quantizer, Direction.FISHER)

    def of(upper: int, lower: int) -> torch.Tensor:
        widths = _widths(quantizer, upper), _widths(quantizer, lower)
        return importance(Direction.FISHER, quantizer, statistics, *widths, values)

    assert (of(2, 0) > of(4, 2)).all()


@pytest.mark.parametrize("granularity", list(Granularity))
def test_importances_of_the_paper_combine_gradient_and_magnitude(granularity) -> None:
    quantizer = _quantizer(granularity)
    widths = _widths(quantizer, 8), _widths(quantizer, 4)
    for direction, combine in (
        (Direction.GRADIENT, lambda g, m: g),
        (Direction.GRADIENT_MAGNITUDE, lambda g, m: g + m),
        (Direction.GRADIENT_TIMES_MAGNITUDE, lambda g, m: g * m),
    ):
        statistics = _statistics(quantizer, direction)
        found = importance(direction, quantizer, statistics, *widths, _values())
        torch.testing.assert_close(found, combine(statistics.gradient, statistics.magnitude))
        assert found.shape == quantizer.spec.gate_shape


@pytest.mark.parametrize("direction", list(Direction))
def test_importance_is_zero_before_a_backward_pass(direction) -> None:
    quantizer = _quantizer(Granularity.CHANNEL)
    empty = RunningStatistics(quantizer.spec, wanted_statistics(direction, True))
    widths = _widths(quantizer, 8), _widths(quantizer, 4)
    found = importance(direction, quantizer, empty, *widths, _values())
    assert found.shape == quantizer.spec.gate_shape
    assert not found.any()


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6, 1e12])
def test_standardised_importances_do_not_depend_on_scale(scale) -> None:
    generator = torch.Generator().manual_seed(0)
    importances = {
        "a": torch.rand(5, 7, generator=generator) ** 4,
        "b": 100 * torch.rand((), generator=generator),
        "c": torch.cat([torch.zeros(2), torch.rand(3, generator=generator)]),
    }
    expected = standardise(importances)
    found = standardise({name: scale * value for name, value in importances.items()})
    for name in importances:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


def test_standardised_importances_keep_their_order() -> None:
    importances = {
        "a": torch.tensor([1e-3, 1e-2, 1e-1, 1.0]),
        "b": torch.tensor([5e-3, 5e-2, 5e-1, 5.0]),
    }
    ranked = standardise(importances)
    mixed = torch.stack([ranked["a"], ranked["b"]], dim=1).reshape(-1)
    assert torch.equal(mixed, mixed.sort().values)
    assert 0 < mixed.min() < mixed.max() < 1
    assert standardise({}) == {}


def test_equal_importances_are_standardised_to_one_half() -> None:
    ranked = standardise({"a": torch.full((4,), 3.0), "b": torch.tensor(3.0)})
    torch.testing.assert_close(ranked["a"], torch.full((4,), 0.5))
    nothing = standardise({"a": torch.zeros(3)})
    torch.testing.assert_close(nothing["a"], torch.full((3,), 0.5))


def test_directions_under_a_broken_bound_are_positive_and_smaller_for_important_gates() -> None:
    ranked = torch.linspace(0, 1, 11)
    direction = gate_direction(ranked, satisfied=False)
    assert direction.min() >= MIN_DIRECTION - 1e-6
    assert direction.max() <= 1
    assert (direction.diff() < 0).all()


def test_directions_under_kept_bounds_are_negative_and_larger_for_important_gates() -> None:
    ranked = torch.linspace(0, 1, 11)
    direction = gate_direction(ranked, satisfied=True)
    assert direction.max() <= -MIN_DIRECTION + 1e-6
    assert direction.min() >= -1
    assert (direction.diff() < 0).all()
