"""Running means of values and gradients for each gate."""

from __future__ import annotations

import pytest
import torch

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.learn.statistics import RunningStatistics

ALL = ("gradient", "magnitude", "gradient_square")


def _spec(role: Role, granularity: Granularity, shape=(1, 3, 2)) -> QuantizerSpec:
    axis = 1 if granularity is Granularity.CHANNEL else None
    return QuantizerSpec("t", role, GridForm.SYMMETRIC, granularity, Ladder(), shape, axis)


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("granularity", list(Granularity))
def test_statistics_of_activations_are_taken_over_batch_and_gate(granularity) -> None:
    value, gradient = _random(5, 3, 2, seed=0), _random(5, 3, 2, seed=1)
    spec = _spec(Role.ACTIVATION, granularity)
    statistics = RunningStatistics(spec, ALL)
    statistics.observe(value, gradient)
    axes = {"tensor": (0, 1, 2), "channel": (0, 2), "element": (0,)}[granularity.value]
    keep = granularity is not Granularity.TENSOR
    # The loss is a mean over 5 samples, so a sample's own gradient is 5 times as large.
    torch.testing.assert_close(statistics.gradient, (5 * gradient).abs().mean(axes, keep))
    torch.testing.assert_close(statistics.magnitude, value.abs().mean(axes, keep))
    torch.testing.assert_close(statistics.gradient_square, gradient.square().sum(axes, keep))
    assert statistics.gradient.shape == spec.gate_shape


@pytest.mark.parametrize("granularity", list(Granularity))
def test_statistics_of_weights_are_taken_over_the_elements_of_a_gate(granularity) -> None:
    value, gradient = _random(4, 3, 2, seed=0), _random(4, 3, 2, seed=1)
    spec = _spec(Role.WEIGHT, granularity, (4, 3, 2))
    statistics = RunningStatistics(spec, ALL)
    statistics.observe(value, gradient)
    axes = {"tensor": (0, 1, 2), "channel": (0, 2), "element": ()}[granularity.value]
    if granularity is Granularity.ELEMENT:
        expected = gradient.abs(), value.abs(), gradient.square()
    else:
        keep = granularity is Granularity.CHANNEL
        expected = (
            gradient.abs().mean(axes, keep),
            value.abs().mean(axes, keep),
            gradient.square().sum(axes, keep),
        )
    for name, tensor in zip(ALL, expected, strict=True):
        torch.testing.assert_close(getattr(statistics, name), tensor)


def test_running_means_are_plain_at_first_and_forget_slowly_later() -> None:
    statistics = RunningStatistics(
        _spec(Role.WEIGHT, Granularity.TENSOR, ()), ["magnitude"], momentum=0.75
    )
    seen = [4.0, 8.0, 0.0, 0.0, 4.0]
    means = []
    for value in seen:
        statistics.observe(torch.tensor(value), torch.tensor(1.0))
        means.append(float(statistics.magnitude))
    assert means[:4] == pytest.approx([4.0, 6.0, 4.0, 3.0])
    assert means[4] == pytest.approx(0.75 * 3.0 + 0.25 * 4.0)


def test_only_wanted_statistics_are_kept() -> None:
    statistics = RunningStatistics(_spec(Role.WEIGHT, Granularity.ELEMENT), ["gradient"])
    statistics.observe(torch.ones(1, 3, 2), torch.ones(1, 3, 2))
    assert statistics.gradient is not None
    assert statistics.magnitude is None
    assert statistics.gradient_square is None


def test_statistics_do_not_refer_to_observed_tensors() -> None:
    statistics = RunningStatistics(_spec(Role.WEIGHT, Granularity.ELEMENT), ALL)
    value, gradient = torch.ones(1, 3, 2), torch.ones(1, 3, 2)
    statistics.observe(value, gradient)
    value.fill_(7)
    gradient.fill_(7)
    assert all(float(getattr(statistics, name).max()) == 1 for name in ALL)


def test_loaded_statistics_go_on_alike_but_independently() -> None:
    spec = _spec(Role.WEIGHT, Granularity.ELEMENT)
    first, second = RunningStatistics(spec, ALL), RunningStatistics(spec, ALL)
    first.load_state_dict(second.state_dict(), torch.device("cpu"))
    assert first.gradient is None
    for seed in range(3):
        first.observe(_random(1, 3, 2, seed=seed), _random(1, 3, 2, seed=seed + 9))
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    before = {name: getattr(second, name).clone() for name in ALL}
    first.observe(_random(1, 3, 2, seed=5), _random(1, 3, 2, seed=6))
    for name in ALL:
        assert torch.equal(getattr(second, name), before[name])
    second.observe(_random(1, 3, 2, seed=5), _random(1, 3, 2, seed=6))
    for name in ALL:
        assert torch.equal(getattr(second, name), getattr(first, name))
