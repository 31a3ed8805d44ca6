"""Losses are measured one tensor at a time, and leave the mirror as it was."""

from __future__ import annotations

import math

import pytest
import torch

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.learn.measured_losses import measure_losses, measure_reliefs
from onnx_cgmq.learn.snapshot import snapshot
from tests.support.staged import Job, job
from tests.support.toys import convnet, mlp


def _measure(start: Job, names=None, progress=None):
    return measure_losses(
        start.mirror,
        start.train,
        start.teacher,
        start.loss,
        names=start.mirror.quantizers if names is None else names,
        samples=32,
        batch_size=16,
        progress=progress,
    )


def test_every_tensor_has_a_loss_for_each_width_that_falls_with_more_bits() -> None:
    start = job(convnet(), widths=(2, 4, 8))
    measured = _measure(start)
    assert set(measured) == set(start.mirror.quantizers)
    for name, losses in measured.items():
        assert set(losses) == {2, 4, 8}
        if start.mirror.quantizers[name].spec.role is Role.WEIGHT:
            assert losses[2] > losses[4] > losses[8] >= 0


def test_a_loss_is_that_of_one_quantized_tensor_alone() -> None:
    start = job(mlp(), widths=(2, 32))
    quantizer = start.mirror.quantizers["w1"]
    measured = _measure(start, ["w1"])
    assert list(measured) == ["w1"]
    quantizer.set_gate(quantizer.gate_for(quantizer.widths * 0 + 2))
    order = torch.linspace(0, len(start.train) - 1, 32).long().numpy()
    losses = []
    for batch in start.train.batches(16, order=order):
        inputs = {"x": torch.from_numpy(batch.inputs["x"])}
        with torch.no_grad():
            losses.append(float(start.loss(start.mirror(inputs), None, start.float_mirror(inputs))))
    assert measured["w1"][2] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_tensors_with_one_width_are_not_measured() -> None:
    start = job(mlp(), widths=(4, 8), fix={"w1": 4})
    calls = []
    measured = _measure(start, progress=lambda done, total: calls.append((done, total)))
    assert "w1" not in measured
    total = 2 * (len(start.mirror.quantizers) - 1)  # there are two batches
    assert calls == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize("training", [True, False])
def test_the_mirror_stays_as_it_was(training) -> None:
    start = job(mlp(), widths=(2, 4, 8))
    start.mirror.train(training)
    before = snapshot(start.mirror)
    _measure(start)
    assert start.mirror.training is training
    assert all(torch.equal(value, before[key]) for key, value in snapshot(start.mirror).items())
    assert not any(quantizer.bypassed for quantizer in start.mirror.quantizers.values())


@pytest.mark.parametrize("call", range(2, 12, 3))
def test_the_mirror_stays_as_it_was_wherever_measuring_is_stopped(call, monkeypatch) -> None:
    start = job(mlp(), widths=(2, 4, 8))
    start.mirror.train()
    before, run, calls = snapshot(start.mirror), start.mirror.run_part, []

    def stopped(*arguments):
        calls.append(call)
        if len(calls) == call:
            raise KeyboardInterrupt
        return run(*arguments)

    monkeypatch.setattr(start.mirror, "run_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        _measure(start)
    assert start.mirror.training
    assert all(torch.equal(value, before[key]) for key, value in snapshot(start.mirror).items())
    assert not any(quantizer.bypassed for quantizer in start.mirror.quantizers.values())


def test_a_loss_that_is_not_finite_is_worse_than_any_other() -> None:
    start = job(mlp(), widths=(2, 4, 8))
    loss = start.loss

    def broken(outputs, labels, teacher):
        value = loss(outputs, labels, teacher)
        return value * torch.nan if start.mirror.quantizers["w1"].widths == 2 else value

    start.loss = broken
    measured = _measure(start)
    assert all(math.isfinite(value) for losses in measured.values() for value in losses.values())
    assert measured["w1"][2] > 1e6 > measured["w2"][2]


def test_a_relief_is_the_fall_of_the_loss_if_one_tensor_stays_float() -> None:
    start = job(mlp(), widths=(2, 32))
    for quantizer in start.mirror.quantizers.values():
        quantizer.set_gate(quantizer.gate_for(quantizer.widths * 0 + 2))
    before, calls = snapshot(start.mirror), []

    def relief(names):
        return measure_reliefs(
            start.mirror, start.train, start.teacher, start.loss, names=names, samples=32,
            batch_size=16, progress=lambda *done: calls.append(done),
        )  # fmt: skip

    found = relief(["w1"])
    assert calls == [(1, 1)]
    assert all(torch.equal(value, before[key]) for key, value in snapshot(start.mirror).items())
    quantizer = start.mirror.quantizers["w1"]
    assert not quantizer.bypassed
    whole = _mean(start)
    quantizer.bypassed = True
    assert found["w1"] == pytest.approx(whole - _mean(start), rel=1e-4)


def _mean(start: Job) -> float:
    order = torch.linspace(0, len(start.train) - 1, 32).long().numpy()
    losses = []
    for batch in start.train.batches(16, order=order):
        inputs = {"x": torch.from_numpy(batch.inputs["x"])}
        with torch.no_grad():
            losses.append(float(start.loss(start.mirror(inputs), None, start.float_mirror(inputs))))
    return sum(losses) / len(losses)
