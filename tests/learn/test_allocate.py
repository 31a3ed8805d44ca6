"""Widths are chosen by measured losses: mixed ones lose less than uniform ones of the same cost."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.learn import allocate as module
from onnx_cgmq.learn.allocate import allocate
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.schedule import Stages
from onnx_cgmq.learn.snapshot import snapshot
from tests.support.staged import Job, job
from tests.support.toys import CLASSES, convnet, make_model, mlp

STAGES = Stages(measured_samples=32, reconstruction_steps=0, batch_size=16)


def _uneven() -> onnx.ModelProto:
    """A sum of two branches of the same size; what the second one gives hardly matters."""
    rng = np.random.default_rng(0)
    weights = {
        **{name: rng.normal(0, 0.4, (8, 8)) for name in ("a1", "b1")},
        **{name: rng.normal(0, 0.4, (8, CLASSES)) for name in ("a2", "b2")},
        "little": np.full(1, 0.01),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a1"], ["ha"], name="layer_a1"),
        helper.make_node("Tanh", ["ha"], ["ta"], name="tanh_a"),
        helper.make_node("MatMul", ["ta", "a2"], ["ya"], name="layer_a2"),
        helper.make_node("MatMul", ["x", "b1"], ["hb"], name="layer_b1"),
        helper.make_node("Tanh", ["hb"], ["tb"], name="tanh_b"),
        helper.make_node("MatMul", ["tb", "b2"], ["yb"], name="layer_b2"),
        helper.make_node("Mul", ["yb", "little"], ["yl"], name="scale"),
        helper.make_node("Add", ["ya", "yl"], ["y"], name="sum"),
    ]
    return make_model(nodes, weights, [8])


def _allocate(start: Job, guide: Guide, stages: Stages = STAGES, **arguments) -> None:
    allocate(guide, start.train, start.teacher, start.loss, stages, **arguments)


def test_a_mixed_plan_loses_less_than_the_uniform_one_of_the_same_cost() -> None:
    bound = "1.5625%"  # 4 bits everywhere
    mixed = job(_uneven(), widths=(2, 4, 8))
    guide = mixed.guide(bound)
    _allocate(mixed, guide)
    uniform = job(_uneven(), widths=(4,))
    assert guide.satisfied
    assert guide.costs <= uniform.guide(bound).costs
    assert mixed.error() < 0.9 * uniform.error()
    widths = {name: int(array) for name, array in guide.widths.items() if array.ndim == 0}
    assert widths["a1"] > widths["b1"]


def _broken_measuring(*_, **__):
    raise AssertionError("measured")


@pytest.mark.parametrize("bound", ["6.25%", "7%", "size:80%"])
def test_nothing_is_measured_where_settling_keeps_the_bounds(bound, monkeypatch) -> None:
    monkeypatch.setattr(module, "measure_losses", _broken_measuring)
    start = job(convnet())
    guide = start.guide(bound)
    _allocate(start, guide)
    assert guide.satisfied
    multiplied = {operand.name for op in guide.cost_model.ops for operand in (op.a, op.b)}
    for name in multiplied:
        assert guide.widths[name] == 8


def test_without_integer_kernels_widths_of_16_bits_are_measured_and_used() -> None:
    """The bound is kept by 8 bits, but nothing narrows tensors to these, and it allows more."""
    start = job(_uneven(), widths=(2, 4, 8, 16, 32))
    guide = start.guide("12%")
    _allocate(start, guide, integer_kernels=False)
    assert guide.measured
    assert guide.satisfied
    assert {int(array) for array in guide.widths.values()} & {16, 32}
    assert min(int(guide.widths[name]) for name in ("a1", "a2", "x")) >= 8


@pytest.mark.parametrize(
    ("bound", "counted"),
    [("size:16%", {"k1", "k2", "w"}), ("1%", {"x", "k1", "p", "k2", "f", "w"})],
)
def test_only_tensors_that_count_for_a_bound_are_measured(bound, counted) -> None:
    start = job(convnet())
    guide = start.guide(bound)
    _allocate(start, guide)
    assert set(guide.measured) == counted
    assert guide.satisfied


@pytest.mark.parametrize("bounds", ["5%", "0.6%", ["2%", "size:20%"], "activations:60%"])
@pytest.mark.parametrize("model", [mlp, convnet])
def test_bounds_are_kept_and_weights_stay(model, bounds) -> None:
    start = job(model())
    before = {n: v.detach().clone() for n, v in start.mirror.value_parameters.items()}
    guide = start.guide(bounds)
    _allocate(start, guide)
    assert guide.satisfied
    assert all(quantizer.observer is None for quantizer in start.mirror.quantizers.values())
    for name, values in start.mirror.value_parameters.items():
        assert torch.equal(values, before[name])


def test_weights_get_fewer_bits_if_their_rounding_will_be_learned() -> None:
    bits = []
    for steps in (0, 100):
        start = job(convnet(), widths=(2, 4, 8))
        guide = start.guide("2.5%")
        _allocate(start, guide, Stages(32, reconstruction_steps=steps, batch_size=16))
        bits.append(guide.mean_bits(Role.WEIGHT) - guide.mean_bits(Role.ACTIVATION))
    assert bits[1] < bits[0]


@pytest.mark.parametrize("place", ["progress", "step", "settle"])
def test_what_stops_it_leaves_the_mirror_as_it_was(place, monkeypatch) -> None:
    start = job(mlp())
    guide = start.guide("1%")
    before, guided = snapshot(start.mirror), guide.state_dict()

    def stop(*_):
        raise KeyboardInterrupt

    if place == "step":
        step, calls = guide.step, []
        monkeypatch.setattr(
            guide, "step", lambda: stop() if len(calls) == 9 else (calls.append(1), step())
        )
    elif place == "settle":
        monkeypatch.setattr(Guide, "release", stop)
    with pytest.raises(KeyboardInterrupt):
        _allocate(start, guide, progress=stop if place == "progress" else None)
    assert all(torch.equal(value, before[key]) for key, value in snapshot(start.mirror).items())
    assert guide.state_dict()["calls"] == guided["calls"]
