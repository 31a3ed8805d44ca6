"""The guide moves gates by whether the bound is kept, reaches it in time, settles and enforces."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from onnx_cgmq.contract.bits import Granularity, Role
from onnx_cgmq.errors import BoundError
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.settings.config import Direction
from onnx_cgmq.writing.write_back import write_back
from tests.support.toys import convnet, gated_mirror, guided_steps, mlp

GRANULARITIES = [granularity.value for granularity in Granularity]


def _gates(mirror) -> dict[str, torch.Tensor]:
    return {name: quantizer.gate.clone() for name, quantizer in mirror.quantizers.items()}


def _costly(guide: Guide) -> list[str]:
    """Names of tensors whose widths cost something, which are all but biases."""
    return list(guide.budget.growth(guide.costs, guide.widths, guide.widths)[0])


@pytest.mark.parametrize("direction", list(Direction))
def test_gates_fall_while_the_bound_is_broken_and_rise_while_it_is_kept(direction) -> None:
    _, mirror, data = gated_mirror(mlp(), granularity="channel")
    guide = Guide(mirror, "5%", direction=direction, steps=400, interval=1)
    before = _gates(mirror)
    guided_steps(mirror, guide, data, 1)
    slowest = 0.1 * 5.0 / (0.4 * 400)
    moves = [before[name] - gate for name, gate in _gates(mirror).items() if name in _costly(guide)]
    assert min(float(move.min()) for move in moves) >= slowest

    for quantizer in mirror.quantizers.values():
        quantizer.set_gate(torch.full_like(quantizer.gate, 1.5))
    guide.enforce()
    assert guide.satisfied
    before = _gates(mirror)
    guided_steps(mirror, guide, data, 1)
    moves = [gate - before[name] for name, gate in _gates(mirror).items() if name in _costly(guide)]
    assert min(float(move.min()) for move in moves) >= 0.99 * slowest


def test_an_important_gate_falls_slower_and_rises_faster() -> None:
    _, mirror, data = gated_mirror(mlp(), granularity="element")
    with torch.no_grad():  # the second half of the hidden units decides nothing
        mirror.value_parameters["w2"][6:] *= 1e-3
    guide = Guide(mirror, "5%", steps=400, interval=1)
    for quantizer in mirror.quantizers.values():
        quantizer.set_gate(torch.full_like(quantizer.gate, 2.5))
    for satisfied in (False, True):
        if satisfied:
            guide = Guide(mirror, "99%", steps=400, interval=1)
        before = mirror.quantizers["w1"].gate.clone()
        guided_steps(mirror, guide, data, 1)
        moves = mirror.quantizers["w1"].gate - before
        important, idle = moves[:, :6].mean(), moves[:, 6:].mean()
        assert important > idle
        assert (float(idle) > 0) == satisfied


def test_gates_move_at_every_interval_th_call_only() -> None:
    _, mirror, data = gated_mirror(mlp())
    guide = Guide(mirror, "5%", steps=100, interval=3)
    for call in range(1, 7):
        before = _gates(mirror)
        guided_steps(mirror, guide, data, 1)
        moved = any(not torch.equal(before[name], gate) for name, gate in _gates(mirror).items())
        assert moved == (call % 3 == 0)


def test_gates_of_a_short_run_move_more_often() -> None:
    _, mirror, data = gated_mirror(mlp())
    guide = Guide(mirror, "5%", steps=20)
    kept = guided_steps(mirror, guide, data, 20)
    assert any(kept)
    assert guide.costs[0] > guide.bounds[0].limit / 4  # not fallen to the bottom


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_bound_is_reached_within_the_steps_given(granularity, direction) -> None:
    _, mirror, data = gated_mirror(mlp(), granularity=granularity)
    guide = Guide(mirror, "1%", direction=direction, steps=60)
    assert any(guided_steps(mirror, guide, data, 60))


def test_the_bound_is_reached_in_a_run_of_few_steps() -> None:
    _, mirror, data = gated_mirror(mlp())
    guide = Guide(mirror, "5%", steps=8)
    assert any(guided_steps(mirror, guide, data, 8))


@pytest.mark.parametrize("bound", ["1%", "3%", "size:15%"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_settled_widths_keep_the_bound_and_no_gate_could_widen(granularity, bound) -> None:
    _, mirror, data = gated_mirror(convnet(), granularity=granularity)
    guide = Guide(mirror, bound, steps=10)
    guided_steps(mirror, guide, data, 10)
    guide.settle()
    assert guide.satisfied
    widths = guide.widths
    narrow = [name for name, q in mirror.quantizers.items() if q.spec.role is not Role.BIAS]
    assert max(widths[name].max() for name in narrow) <= 8
    assert all(quantizer.observer is None for quantizer in mirror.quantizers.values())
    cost, limit = guide.costs[0], guide.bounds[0].limit
    for name in _costly(guide):
        for index in list(np.ndindex(widths[name].shape))[:25]:
            ladder = mirror.quantizers[name].spec.ladder.widths
            wider = ladder[min(ladder.index(widths[name][index]) + 1, len(ladder) - 1)]
            if wider > 8:
                continue
            tried = {other: array.copy() for other, array in widths.items()}
            tried[name] = np.array(tried[name])
            tried[name][index] = wider
            assert guide.budget.costs(tried)[0] > limit, (name, index, cost, limit)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_settling_before_any_step_keeps_the_bound(granularity) -> None:
    _, mirror, _ = gated_mirror(mlp(), granularity=granularity)
    guide = Guide(mirror, "1%")
    guide.settle()
    assert guide.satisfied
    assert guide.plan().cost.bops <= guide.bounds[0].limit


def test_settle_narrows_wide_tensors_to_8_bits_for_integer_kernels_only() -> None:
    for integer_kernels, widest in ((True, 8), (False, 32)):
        _, mirror, _ = gated_mirror(mlp())
        guide = Guide(mirror, "100%")
        guide.settle(integer_kernels)
        widths = [guide.widths[name] for name in _costly(guide)]
        assert {int(width) for width in widths} == {widest}


def test_settle_narrows_a_weight_of_mixed_widths_without_integer_kernels_too() -> None:
    _, mirror, _ = gated_mirror(mlp(), granularity="channel")
    guide = Guide(mirror, "100%")
    mixed = torch.full_like(mirror.quantizers["w1"].gate, 4.5)
    mixed[0, 0] = 1.5
    mirror.quantizers["w1"].set_gate(mixed)
    guide.settle(integer_kernels=False)
    assert guide.widths["w1"].max() == 8
    assert set(guide.widths["w2"].ravel()) == {32}


def test_enforce_narrows_the_least_important_gates_to_the_bound() -> None:
    _, mirror, data = gated_mirror(mlp(), granularity="element")
    with torch.no_grad():
        mirror.value_parameters["w2"][6:] *= 1e-3
    guide = Guide(mirror, "10%", steps=1000)
    guided_steps(mirror, guide, data, 2)
    assert not guide.satisfied
    guide.enforce()
    assert guide.satisfied
    assert guide.costs[0] > 0.98 * guide.bounds[0].limit
    widths = guide.widths["w1"]
    assert widths[:, :6].mean() > 1.5 * widths[:, 6:].mean()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("steps", [0, 6])
def test_the_plan_of_a_guided_mirror_keeps_the_bound_without_settling(granularity, steps) -> None:
    gated, mirror, data = gated_mirror(mlp(), granularity=granularity)
    guide = Guide(mirror, "20%", steps=1000)
    guided_steps(mirror, guide, data, steps)
    assert not guide.satisfied
    plan = guide.plan()
    assert plan.bound == "20%"
    assert plan.cost.bops <= guide.bounds[0].limit
    assert inspect(write_back(gated, plan)).bops == plan.cost.bops


def test_costs_follow_widths_that_are_set_outside_of_the_guide() -> None:
    """Making a plan narrows channels to their codes, and a loaded state has widths of its own."""
    _, mirror, _ = gated_mirror(mlp(), granularity="element")
    guide = Guide(mirror, "10%")
    state = {name: tensor.clone() for name, tensor in mirror.state_dict().items()}
    plan = guide.plan()
    assert guide.costs[0] == plan.cost.bops
    mirror.load_state_dict(state)
    assert guide.costs[0] == guide.budget.costs(guide.widths)[0] > guide.bounds[0].limit


@pytest.mark.parametrize("width", [2, 8, 16, 32])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_gate_of_an_input_of_fixed_width_never_moves(granularity, width) -> None:
    _, mirror, data = gated_mirror(mlp(), granularity=granularity, input_width=width)
    guide = Guide(mirror, "8%", steps=30)
    before = mirror.quantizers["x"].gate.clone()
    guided_steps(mirror, guide, data, 30)
    guide.settle()
    plan = guide.plan()
    assert torch.equal(mirror.quantizers["x"].gate, before)
    assert (plan.tensors["x"].widths == width).all()
    assert plan.cost.bops <= guide.bounds[0].limit


def test_a_bound_below_the_minimum_is_refused_with_the_minimum() -> None:
    _, mirror, _ = gated_mirror(mlp())
    with pytest.raises(BoundError, match="first") as refused:
        Guide(mirror, "0.1%")
    macs = 8 * 12 + 12 * 3
    assert f"{macs * 4} bit operations" in str(refused.value)
    (stated,) = re.findall(r"\('([0-9.]+%)'\)", str(refused.value))
    guide = Guide(mirror, stated)
    guide.settle()
    assert guide.costs[0] == macs * 4
    with pytest.raises(BoundError):
        Guide(mirror, f"{macs * 4 - 1}BOP")
    assert Guide(mirror, f"{macs * 4}BOP").bounds[0].limit == macs * 4


def test_a_guide_goes_on_from_a_saved_state() -> None:
    _, mirror, data = gated_mirror(mlp(), granularity="channel")
    guide = Guide(mirror, "2%", steps=100)
    guided_steps(mirror, guide, data, 12)
    _, other, _ = gated_mirror(mlp(), granularity="channel")
    successor = Guide(other, "2%", steps=100)
    other.load_state_dict(mirror.state_dict())
    successor.load_state_dict(guide.state_dict())
    guided_steps(mirror, guide, data, 13)
    guided_steps(other, successor, data, 13)
    gates = _gates(other)
    assert all(torch.equal(gate, gates[name]) for name, gate in _gates(mirror).items())
    assert successor.costs[0] == guide.costs[0]
