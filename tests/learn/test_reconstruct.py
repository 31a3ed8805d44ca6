"""Reconstruction lowers the error of narrow weights, and changes nothing that it must not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.learn import part_learners
from onnx_cgmq.learn.reconstruct import reconstruct
from onnx_cgmq.learn.snapshot import snapshot
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from tests.support.staged import Job, job
from tests.support.toys import CLASSES, convnet, make_model, mlp

NARROW = {"widths": (4,), "activation_widths": (8,)}


def _weights(job: Job) -> dict[str, torch.Tensor]:
    """A copy of the values of all weights, by name."""
    return {
        name: values.detach().clone()
        for name, values in job.mirror.value_parameters.items()
        if name in job.mirror.quantizers and job.mirror.quantizers[name].spec.role is Role.WEIGHT
    }


def _steps(job: Job) -> dict[str, torch.Tensor]:
    quantizers = job.mirror.quantizers
    return {name: quantizers[name].selected()[0].step.clone() for name in _weights(job)}


def _chain(*names: str, bias: bool = False) -> onnx.ModelProto:
    """MatMuls of 8x8 weights with these names, with Tanh between them, and one to the classes."""
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 0.4, (8, 8)) for name in names}
    weights["head"] = rng.normal(0, 0.4, (8, CLASSES))
    nodes, x = [], "x"
    for i, name in enumerate(names):
        nodes.append(helper.make_node("MatMul", [x, name], [f"h{i}"], name=f"layer{i}"))
        nodes.append(helper.make_node("Tanh", [f"h{i}"], [f"t{i}"], name=f"tanh{i}"))
        x = f"t{i}"
    nodes.append(helper.make_node("MatMul", [x, "head"], ["y"], name="last"))
    return make_model(nodes, weights, [8])


@pytest.mark.parametrize(("model", "margin"), [(mlp, 1.4), (convnet, 1.5)])
def test_the_error_on_other_samples_falls(model, margin) -> None:
    start = job(model(), **NARROW)
    before = start.error()
    reconstruct(start.mirror, start.train, steps=120)
    assert start.error() < before / margin


def test_widths_gates_and_steps_of_weights_stay_and_codes_move_by_one_at_most() -> None:
    start = job(convnet(), **NARROW)
    gates = {name: q.gate.clone() for name, q in start.mirror.quantizers.items()}
    weights, steps = _weights(start), _steps(start)
    reconstruct(start.mirror, start.train, steps=40)
    for name, quantizer in start.mirror.quantizers.items():
        assert torch.equal(quantizer.gate, gates[name])
    moved = 0.0
    for name, values in _weights(start).items():
        assert torch.equal(steps[name], _steps(start)[name])
        before, after = (
            torch.round(tensor / steps[name]).clamp(-7, 7) for tensor in (weights[name], values)
        )
        share = (after - before).abs().amax()
        assert share <= 1
        moved = max(moved, float(share))
    assert moved == 1


def test_a_shared_weight_is_left_alone() -> None:
    start = job(_chain("w", "w", "other"), **NARROW)
    before, error = _weights(start), start.error()
    reconstruct(start.mirror, start.train, steps=60)
    after = _weights(start)
    assert torch.equal(after["w"], before["w"])
    assert not torch.equal(after["other"], before["other"])
    assert start.error() < error


@pytest.mark.parametrize("names", [(), ("w1", "w2")])
def test_one_part_and_no_biases(names) -> None:
    start = job(_chain(*names), **NARROW)
    assert len(start.mirror.parts()) >= len(names) + 1
    before, calls = start.error(), []
    reconstruct(
        start.mirror,
        start.train,
        steps=60,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert start.error() <= before
    total = len(start.mirror.parts())
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_no_steps_change_nothing() -> None:
    start = job(convnet(), **NARROW)
    before = snapshot(start.mirror)
    reconstruct(start.mirror, start.train, steps=0)
    assert all(torch.equal(value, before[key]) for key, value in snapshot(start.mirror).items())


def _is_plain(start: Job) -> bool:
    quantizers = start.mirror.quantizers.values()
    return not any(q.drop or q.bypassed for q in quantizers)


def test_nothing_is_dropped_or_bypassed_afterwards() -> None:
    start = job(mlp(), **NARROW)
    reconstruct(start.mirror, start.train, steps=5)
    assert _is_plain(start)
    assert all(parameter.grad is None for parameter in start.mirror.value_parameters.values())


@pytest.mark.parametrize("place", ["progress", "forward"])
def test_nothing_is_dropped_or_bypassed_after_an_exception(place, monkeypatch) -> None:
    start = job(mlp(), **NARROW)
    calls = []

    def stop(*_) -> None:
        calls.append(place)
        if place == "progress" or len(calls) == 30:
            raise KeyboardInterrupt

    if place == "forward":
        run = start.mirror.run_part
        monkeypatch.setattr(
            start.mirror, "run_part", lambda part, values: stop() or run(part, values)
        )
    with pytest.raises(KeyboardInterrupt):
        reconstruct(
            start.mirror, start.train, steps=30, progress=stop if place == "progress" else None
        )
    assert _is_plain(start)


def test_a_part_that_is_stopped_is_as_it_was() -> None:
    start = job(convnet(), **NARROW)
    states, steps = [snapshot(start.mirror)], []

    def progress(*_) -> None:
        states.append(snapshot(start.mirror))

    def stop(*arguments):
        steps.append(1)
        if len(states) == 2 and len(steps) > 60:
            raise KeyboardInterrupt
        return step(*arguments)

    step = part_learners.PartLearners.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_learners.PartLearners, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            reconstruct(start.mirror, start.train, steps=40, progress=progress)
    assert len(states) == 2
    found = snapshot(start.mirror)
    assert all(torch.equal(value, states[1][key]) for key, value in found.items())
    assert not all(torch.equal(value, states[0][key]) for key, value in found.items())


def test_the_same_seed_gives_the_same_state_wherever_the_generator_is() -> None:
    states = []
    for seed in (0, 0, 1):
        start = job(convnet(), **NARROW)
        torch.rand(len(states) + 1)
        generator = torch.get_rng_state()
        reconstruct(start.mirror, start.train, steps=30, seed=seed)
        assert torch.equal(torch.get_rng_state(), generator)
        states.append(snapshot(start.mirror))
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("rate", ["_LARGEST_SIGN_RATE", "_BIAS_RATE", "_RANGE_RATE"])
def test_rates_that_destroy_leave_the_calibrated_state(rate, monkeypatch) -> None:
    """A part keeps its best state, which is then its first one."""
    monkeypatch.setattr(part_learners, rate, 1e3)
    start = job(convnet(), **NARROW)
    before = start.error(start.train)
    reconstruct(start.mirror, start.train, steps=20)
    assert start.error(start.train) <= before * 1.05


def test_gradients_that_are_not_finite_move_nothing() -> None:
    """The square root of zero has no finite gradient."""
    weights = {"w": np.random.default_rng(0).normal(0, 0.4, (8, CLASSES)), "zero": np.zeros(1)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Mul", ["h", "zero"], ["z"], name="none"),
        helper.make_node("Abs", ["z"], ["a"], name="abs"),
        helper.make_node("Sqrt", ["a"], ["s"], name="root"),
        helper.make_node("Add", ["s", "h"], ["y"], name="last"),
    ]
    start = job(make_model(nodes, weights, [8]), **NARROW)
    reconstruct(start.mirror, start.train, steps=10)
    assert all(torch.isfinite(values).all() for values in start.mirror.state_dict().values())
    assert np.isfinite(start.error())


def test_steps_of_codes_are_not_compared() -> None:
    """A step goes on to the next part with its codes, and is zero where nothing is quantized."""
    mirror = job(convnet(), **NARROW).mirror
    for part in mirror.parts():
        results = mirror.results_of(part)
        assert set(results) <= set(part.exits)
        for step in part.steps:
            if isinstance(step.call, GatedQuantizer):
                assert step.outputs[1] not in results
