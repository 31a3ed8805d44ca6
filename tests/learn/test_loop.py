"""Runs that stop early: what they keep, where they go on; the float model stays."""

from __future__ import annotations

from types import SimpleNamespace

import onnx
import pytest
from toys import mlp, toy_data

from onnx_cgmq.errors import OutputError
from onnx_cgmq.events import EpochDone, StepDone
from onnx_cgmq.learn import loop
from onnx_cgmq.pipeline import checkpoint_path, quantize

STEPS = 6  # an epoch


def _run(output, progress=None, **settings):
    model = mlp()
    settings = {"epochs": 4, "batch_size": 32, **settings}
    return quantize(model, toy_data(model), "3%", output=output, progress=progress, **settings)


def test_the_float_model_is_not_overwritten(tmp_path) -> None:
    onnx.save(mlp(), tmp_path / "model.onnx")
    before = (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(OutputError, match="the float model itself"):
        quantize(tmp_path / "model.onnx", toy_data(mlp()), "3%", output=tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == before


def _stop_at(step):
    def progress(event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("step", [2, STEPS + 3, 3 * STEPS])
def test_a_stopped_run_goes_on_where_it_was(step, tmp_path) -> None:
    output, events = tmp_path / "out.onnx", []
    assert not _run(output, _stop_at(step)).complete
    assert checkpoint_path(output).exists()
    resumed = _run(output, events.append, resume=True)
    assert next(event.step for event in events if isinstance(event, StepDone)) == step + 1
    assert resumed.plan.to_json() == _run(None).plan.to_json()


def test_a_time_limit_is_that_of_one_call(tmp_path, monkeypatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    output, calls, done = tmp_path / "out.onnx", 0, []
    while not (result := _run(output, done.append, resume=True, time_limit=7.5)).complete:
        assert result.outcome.reason == "time limit"
        calls += 1
        assert calls < 20, "the same command again gets nowhere"
    steps = [event.step for event in done if isinstance(event, StepDone)]
    assert steps == list(range(1, 4 * STEPS + 1))
    assert calls > 1


def test_what_was_learned_since_the_last_epoch_is_considered(tmp_path) -> None:
    events = []

    def progress(event) -> None:
        events.append(event)
        _stop_at(STEPS + 5)(event)

    result = _run(tmp_path / "out.onnx", progress)
    before = next(event for event in events if isinstance(event, EpochDone))
    assert result.outcome.best_epoch == 2
    assert result.outcome.validation_loss < before.validation_loss
