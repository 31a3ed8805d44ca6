"""Runs in stages: what they keep, how they end when stopped, and how they go on."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import EpochDone, StageDone, StageProgress, Started, StepDone
from onnx_cgmq.contract.run_paths import checkpoint_path
from onnx_cgmq.contract.stopped import Stopped
from onnx_cgmq.learn import loop, measured_losses, part_learners, reconstruct, stage_work
from onnx_cgmq.learn.checkpoint import Checkpoint
from onnx_cgmq.learn.evaluation import Evaluator
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.pair_room import leave_room_for_pairs
from onnx_cgmq.learn.schedule import Stages
from onnx_cgmq.learn.snapshot import snapshot
from tests.support.staged import STAGES, correlated, job
from tests.support.toys import convnet, mlp

NARROW = {"widths": (2, 4, 8)}


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    """Makes reconstruction take as many steps as :data:`STAGES` says."""
    monkeypatch.setattr("onnx_cgmq.learn.schedule._stages", lambda *_: STAGES)


def _run(output=None, progress=None, **settings):
    model = convnet()
    data = correlated(model, 120, 0)
    settings = {"bound": "2.5%", "widths": (2, 4, 8), **settings}
    return quantize(model, data, output=output, progress=progress, **settings)


def _stop(stage: str, done: int, error: BaseException | None = None):
    def progress(event) -> None:
        if isinstance(event, StageProgress) and (event.stage, event.done) == (stage, done):
            raise error or KeyboardInterrupt

    return progress


def test_a_run_shows_its_stages_and_keeps_the_bound() -> None:
    events = []
    result = _run(progress=events.append)
    assert result.complete
    assert result.cost.rbop <= 0.025
    assert (result.outcome.epochs, result.outcome.best_epoch) == (0, 0)
    started = next(event for event in events if isinstance(event, Started))
    assert (started.epochs, started.total_steps) == (0, 0)
    assert not any(isinstance(event, (StepDone, EpochDone)) for event in events)
    shown = [(e.stage, e.done, e.total) for e in events if isinstance(e, StageProgress)]
    assert shown == [
        *[("allocate", done, 12) for done in range(1, 13)],  # six tensors, two batches
        *[("reconstruct", done, 3) for done in range(1, 4)],
    ]
    ended = [event for event in events if isinstance(event, StageDone)]
    assert [event.stage for event in ended] == ["calibrated", "reconstructed"]
    assert result.outcome.validation_loss == min(event.validation_loss for event in ended)


@pytest.mark.parametrize("rate", ["_LARGEST_SIGN_RATE", "_BIAS_RATE", "_RANGE_RATE"])
def test_a_destructive_rate_ends_no_worse_than_the_calibrated_state(rate, monkeypatch) -> None:
    """Even if reconstruction did not look after its parts."""
    monkeypatch.setattr(part_learners, rate, 1e3)
    monkeypatch.setattr(part_learners.PartLearners, "restore", lambda *_: None)
    start = job(convnet(), **NARROW)
    losses = {}

    def emit(event) -> None:
        if isinstance(event, StageDone):
            losses[event.stage] = event.validation_loss

    learner = start.learner("5%", emit=emit)
    outcome = learner.run()
    calibrated = job(convnet(), **NARROW)
    guide = calibrated.guide("5%")
    guide.set_widths(learner.guide.widths)
    leave_room_for_pairs(calibrated.mirror, spare=1)
    loss, _ = calibrated.evaluator().evaluate(calibrated.mirror)
    assert not losses["reconstructed"] <= losses["calibrated"]
    assert outcome.complete
    assert outcome.validation_loss == losses["calibrated"] == pytest.approx(loss, rel=1e-5)
    assert learner.evaluator.evaluate(learner.mirror)[0] == pytest.approx(loss, rel=1e-5)
    assert learner.guide.satisfied


def test_reconstruction_that_helps_is_kept() -> None:
    start = job(convnet(), **NARROW)
    losses = []
    learner = start.learner(
        "2.5%",
        Stages(32, reconstruction_steps=100, batch_size=32),
        lambda event: losses.append(event.validation_loss) if isinstance(event, StageDone) else 0,
    )
    outcome = learner.run()
    assert outcome.validation_loss == losses[1] < 0.9 * losses[0]
    assert learner.evaluator.evaluate(learner.mirror)[0] == pytest.approx(losses[1])


STOPS = [("allocate", 1), ("allocate", 6), ("reconstruct", 1), ("reconstruct", 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "done"), STOPS)
@pytest.mark.parametrize(
    ("error", "reason"),
    [(KeyboardInterrupt(), "interrupted"), (Stopped("terminated"), "terminated")],
)
def test_a_stopped_stage_gives_a_file_that_keeps_the_bound(
    stage, done, error, reason, tmp_path
) -> None:
    result = _run(tmp_path / "out.onnx", _stop(stage, done, error))
    assert (result.complete, result.outcome.reason) == (False, reason)
    assert (tmp_path / "out.onnx").exists()
    assert result.cost.rbop <= 0.025


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "done"), STOPS)
def test_a_stopped_stage_is_made_up_for_by_a_resumed_run(stage, done, tmp_path) -> None:
    output, events = tmp_path / "out.onnx", []
    assert not _run(output, _stop(stage, done)).complete
    assert checkpoint_path(output).exists()
    resumed = _run(output, events.append, resume=True)
    assert resumed.complete
    assert resumed.plan.to_json() == _run().plan.to_json()
    stages = [(event.stage, event.done) for event in events if isinstance(event, StageProgress)]
    assert stages[0] == (stage, done + 1)
    assert stages[-1][0] == "reconstruct"


@pytest.mark.slow
@pytest.mark.parametrize("ticks", [3.5, 28.5])
def test_a_time_limit_shorter_than_a_stage_gets_there_when_it_is_resumed(
    ticks, tmp_path, monkeypatch
) -> None:
    """What was measured, and the parts that have learned, are not done again."""
    output, measured, learned = tmp_path / "out.onnx", [], []
    loss, part = measured_losses._at_each_width, reconstruct._learn_part

    def at_each_width(*arguments):
        measured.append(1)
        return loss(*arguments)

    def learn_part(*arguments):
        steps = arguments[5]
        learned.extend([1] if steps else [])
        part(*arguments)

    monkeypatch.setattr(measured_losses, "_at_each_width", at_each_width)
    monkeypatch.setattr(reconstruct, "_learn_part", learn_part)
    whole = _run()
    once = (len(measured), len(learned))
    measured.clear()
    learned.clear()
    clock = count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    results = [_run(output, resume=True, time_limit=ticks)]
    while not results[-1].complete and len(results) < 40:
        results.append(_run(output, resume=True, time_limit=ticks))
    assert len(results) > 1
    assert results[-1].complete
    assert (len(measured), len(learned)) == once
    assert results[-1].plan.to_json() == whole.plan.to_json()


def test_the_state_is_saved_within_a_stage(tmp_path, monkeypatch) -> None:
    """So that a killed run has not to begin anew."""
    saved = []
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_SAVES", 0.0)
    save = Checkpoint.save

    def noted(self, state) -> None:
        saved.append((len(state["stages"]["losses"]), state["stages"]["parts"]))
        save(self, state)

    monkeypatch.setattr(Checkpoint, "save", noted)
    _run(tmp_path / "out.onnx")
    assert saved[0] == (1, 0)
    assert {parts for _, parts in saved} >= {1, 2, 3}


def test_a_checkpoint_after_the_stages_repeats_none_of_them(tmp_path, monkeypatch) -> None:
    output, saved = tmp_path / "out.onnx", []
    save = loop.Learner._save

    def stop_after(self) -> None:
        save(self)
        if self._staged and not saved:
            saved.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Learner, "_save", stop_after)
    assert not _run(output).complete
    events = []
    resumed = _run(output, events.append, resume=True)
    assert resumed.complete
    assert not any(isinstance(event, StageProgress) for event in events)
    assert resumed.plan.to_json() == _run().plan.to_json()


@pytest.mark.parametrize("ticks", [3.5, 28.5])
def test_a_time_limit_ends_a_stage_within_the_bound(ticks, monkeypatch) -> None:
    clock, stages = iter(range(10**6)), []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def progress(event) -> None:
        if isinstance(event, StageProgress):
            stages.append(event.stage)

    result = _run(time_limit=ticks, progress=progress)
    assert result.outcome.reason == "time limit"
    assert stages[-1] == ("allocate" if ticks < 5 else "reconstruct")
    assert result.cost.rbop <= 0.025


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "name"), [(Guide, "settle"), (Evaluator, "evaluate")])
def test_a_run_can_be_stopped_between_stages(owner, name, tmp_path, monkeypatch) -> None:
    whole, stopped, output = getattr(owner, name), [], tmp_path / "out.onnx"

    def stop_once(self, *arguments):
        result = whole(self, *arguments)
        if not stopped:
            stopped.append(name)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, stop_once)
    started = _run(output)
    assert started.outcome.reason == "interrupted"
    assert started.cost.rbop <= 0.025
    resumed = _run(output, resume=True)
    assert resumed.complete
    assert resumed.plan.to_json() == _run().plan.to_json()


def test_without_reconstruction_no_weight_changes() -> None:
    start = job(mlp(), **NARROW)
    before = snapshot(start.mirror)
    events = []
    stages = Stages(32, reconstruction_steps=0, batch_size=16)
    start.learner("2.5%", stages, emit=events.append).run()
    assert [event.stage for event in events if isinstance(event, StageDone)] == ["calibrated"]
    assert not any(isinstance(event, StepDone) for event in events)
    assert not any(getattr(event, "stage", "") == "reconstruct" for event in events)
    after, weights = snapshot(start.mirror), start.mirror.value_parameters
    assert weights
    assert all(torch.equal(after[name], before[name]) for name in weights)


def test_parts_learn_from_some_of_many_samples(monkeypatch) -> None:
    whole, seen = stage_work.reconstruct, []

    def watched(mirror, data, **settings) -> None:
        seen.append(len(data))
        whole(mirror, data, **settings)

    monkeypatch.setattr(stage_work, "reconstruct", watched)
    monkeypatch.setattr("onnx_cgmq.learn.schedule.RECONSTRUCTION_SAMPLES", 40)
    assert _run().complete
    assert seen == [40]


def test_epochs_after_the_stages_keep_the_widths() -> None:
    events = []
    result = _run(progress=events.append, epochs=2, learning_rate=0.01)
    assert result.complete
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert [event.phase for event in epochs] == ["settled"] * 2
    assert len({event.rbop for event in epochs}) == 1
    before = [event.validation_loss for event in events if isinstance(event, StageDone)]
    after = [event.validation_loss for event in epochs]
    assert result.outcome.validation_loss == min(*before, *after)
