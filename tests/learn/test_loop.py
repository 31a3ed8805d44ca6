"""The training loop: which state it keeps, how fast it learns, and how a stopped run goes on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import EpochDone, Notice, StepDone
from onnx_cgmq.contract.run_paths import checkpoint_path
from onnx_cgmq.contract.stopped import Stopped
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import ModelError, OutputError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn import loop
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.evaluation import Evaluator
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loop import Learner
from onnx_cgmq.learn.losses import ClassOutput, make_loss
from onnx_cgmq.learn.schedule import EPOCHS, Schedule
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from tests.support.toys import mlp, toy_data

STEPS = 6  # an epoch


def _run(output, progress=None, **settings):
    model = mlp()
    settings = {"epochs": 4, "batch_size": 32, "bound": "3%", **settings}
    return quantize(model, toy_data(model), output=output, progress=progress, **settings)


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


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, STEPS + 3, 3 * STEPS])
def test_a_stopped_run_goes_on_where_it_was(step, tmp_path) -> None:
    output, events = tmp_path / "out.onnx", []
    assert not _run(output, _stop_at(step)).complete
    assert checkpoint_path(output).exists()
    resumed = _run(output, events.append, resume=True)
    assert next(event.step for event in events if isinstance(event, StepDone)) == step + 1
    assert resumed.plan.to_json() == _run(None).plan.to_json()


def _with_last(op_type, *constants):
    """The toy network with another node behind its last one, and constants for that."""
    model = mlp()
    model.graph.node[-1].output[0] = "scores"
    inputs = ["scores", *(name for name, _ in constants)]
    model.graph.node.append(onnx.helper.make_node(op_type, inputs, ["y"], name="end"))
    for name, array in constants:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(array), name))
    return model


def test_values_that_the_float_model_does_not_define_are_left_out_with_a_notice() -> None:
    banned = _with_last("Add", ("mask", [0, -np.inf, 0]))
    data = {"x": toy_data(mlp())["x"]}
    notices = []

    def progress(event) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    result = quantize(banned, data, "5%", epochs=1, batch_size=32, progress=progress)
    assert result.complete
    assert np.isfinite(result.outcome.validation_loss)
    assert [text for text in notices if "not finite" in text] == [
        "the float model itself gives values that are not finite: 'y' (173 of 519); the loss "
        "leaves them out"
    ]


def test_a_float_model_without_any_finite_value_is_refused() -> None:
    broken = _with_last("Add", ("shift", np.nan))
    with pytest.raises(ModelError, match=r"nothing but NaN .*'shift' have such values"):
        quantize(broken, {"x": toy_data(mlp())["x"]}, "5%", epochs=1)


def test_a_loss_that_is_never_finite_is_not_complete() -> None:
    learner = _learner()
    learner.loss = lambda outputs, labels, teacher: outputs["y"].sum() * torch.nan
    learner.evaluator = replace(learner.evaluator, loss=learner.loss)
    notices = []
    learner.emit = lambda event: notices.append(event) if isinstance(event, Notice) else None
    outcome = learner.run()
    assert not outcome.complete
    assert outcome.reason == "loss not finite"
    assert not any("harm" in notice.message for notice in notices)
    assert all(torch.isfinite(value).all() for value in learner.mirror.state_dict().values())


@pytest.mark.slow
def test_a_time_limit_starts_anew_with_each_call(tmp_path, monkeypatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    output, calls, done = tmp_path / "out.onnx", 0, []
    settings = {"resume": True, "time_limit": 7.5, "direction": "gradient"}
    while not (result := _run(output, done.append, **settings)).complete:
        assert result.outcome.reason == "time limit"
        calls += 1
        assert calls < 20, "the same command again gets nowhere"
    steps = [event.step for event in done if isinstance(event, StepDone)]
    assert steps == list(range(1, 4 * STEPS + 1))
    assert calls > 1


def test_a_stopped_run_considers_its_state_after_the_last_epoch(tmp_path) -> None:
    events = []

    def progress(event) -> None:
        events.append(event)
        _stop_at(STEPS + 5)(event)

    result = _run(tmp_path / "out.onnx", progress)
    before = next(event for event in events if isinstance(event, EpochDone))
    assert result.outcome.best_epoch == 2
    assert result.outcome.validation_loss < before.validation_loss


def _learner(bound="3%", **settings) -> Learner:
    """A learner whose 192 training samples are its held-out samples too."""
    model = mlp()
    config = Config(**{"epochs": 4, "batch_size": 32, **settings})
    data = open_data(toy_data(mlp()), prepare(model))
    mirror, teacher = Mirror(insert_gates(model, config)), Mirror(prepare(model))
    calibrate(mirror, data)
    classes = ClassOutput("y", is_probability=False)
    known, loss = Teacher(teacher, len(data)), make_loss("auto", classes, data.has_labels)
    schedule = Schedule(None, config.epochs or EPOCHS)
    return Learner(
        guide=Guide(mirror, bound, steps=schedule.moves(data, config.batch_size)),
        train=data,
        teacher=known,
        loss=loss,
        evaluator=Evaluator(data, known, loss, classes, config.batch_size),
        config=config,
        emit=lambda event: None,
        schedule=schedule,
    )


def test_the_best_settled_state_is_kept() -> None:
    learner, epochs = _learner(learning_rate=0.05), []
    learner.emit = lambda event: epochs.append(event) if isinstance(event, EpochDone) else None
    outcome = learner.run()
    settled = [event for event in epochs if event.phase == "settled"]
    assert len(settled) == 3
    best = min(settled, key=lambda event: event.validation_loss)
    assert outcome.validation_loss == best.validation_loss
    assert outcome.best_epoch == best.epoch
    assert outcome.validation_accuracy == best.validation_accuracy
    assert learner.evaluator.evaluate(learner.mirror)[0] == pytest.approx(best.validation_loss)
    assert learner.guide.satisfied


def test_learning_rates_rise_stay_and_fall_to_nearly_zero() -> None:
    learner, rates = _learner(epochs=10, learning_rate=0.01), []
    learner._undo_harmful_training = lambda: None  # which would slow them down
    adam = learner._optimizer.adam
    step = adam.step

    def watched() -> None:
        rates.append([group["lr"] for group in adam.param_groups])
        step()

    adam.step = watched
    learner.run()
    weights, ranges = np.array(rates).T
    assert len(weights) == learner.total_steps == 10 * STEPS
    np.testing.assert_allclose(weights / 0.01, ranges / learner.config.range_learning_rate)
    guided = learner.schedule.guided_steps(learner.train, learner.config.batch_size)
    np.testing.assert_allclose(weights[1 : guided + 1], 0.01)
    assert (np.diff(weights[guided:]) < 0).all()
    assert weights[-1] < 1e-4


@pytest.mark.parametrize(("epochs", "batch_size", "steps"), [(4, 32, 6), (1, 1000, 1), (12, 64, 9)])
def test_gates_move_in_a_quarter_of_the_steps(epochs, batch_size, steps) -> None:
    data = open_data(toy_data(mlp()), prepare(mlp()))
    assert Schedule(None, epochs).guided_steps(data, batch_size) == steps


def _poisoned(learner: Learner, steps: range) -> list[str]:
    """Makes the loss of some steps NaN; returns the list to which notices will be added."""
    notices: list[str] = []
    learner.emit = lambda event: (
        notices.append(event.message) if isinstance(event, Notice) else None
    )
    loss = learner.loss

    def poisoned(outputs, labels, teacher):
        value = loss(outputs, labels, teacher)
        return value * float("nan") if learner._step in steps else value

    learner.loss = poisoned
    return notices


def test_a_step_without_a_finite_gradient_changes_nothing() -> None:
    learner = _learner()
    notices = _poisoned(learner, range(3, 5))
    outcome = learner.run()
    assert outcome.complete
    assert notices == ["step 4: a gradient is not finite, so this step changes nothing"]
    assert all(torch.isfinite(p).all() for p in learner.mirror.parameters())
    assert learner.guide.satisfied


def test_divergence_ends_with_the_best_state_that_keeps_the_bound(monkeypatch) -> None:
    monkeypatch.setattr(loop, "_MOST_LOST_STEPS", 4)
    learner = _learner()
    _poisoned(learner, range(3 * STEPS, 4 * STEPS))
    outcome = learner.run()
    assert (outcome.complete, outcome.reason) == (False, "diverged")
    assert outcome.best_epoch == 3
    assert learner.guide.satisfied
    assert np.isfinite(learner.evaluator.evaluate(learner.mirror)[0])


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch) -> None:
    def full_disk(content, path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    notices = []
    result = _run(
        tmp_path / "out.onnx",
        lambda event: notices.append(event.message) if isinstance(event, Notice) else None,
        epochs=2,
    )
    assert result.complete
    assert (tmp_path / "out.onnx").exists()
    assert len(notices) == 3  # after the stages, and after each epoch
    assert all("No space left" in n and "learning goes on" in n for n in notices)


def test_training_that_does_harm_is_undone_at_the_learned_widths() -> None:
    learner = _learner("100%", widths=(8,), learning_rate=1.0)
    before = {name: value.detach().clone() for name, value in learner.mirror.state_dict().items()}
    notices: list[str] = []
    learner.emit = lambda event: (
        notices.append(event.message) if isinstance(event, Notice) else None
    )
    start, _ = learner.evaluator.evaluate(learner.mirror)
    outcome = learner.run()
    assert outcome.complete
    assert len(notices) == 1
    assert "more harm than good" in notices[0]
    assert outcome.validation_loss <= start
    if outcome.best_epoch == 0:
        assert torch.equal(learner.mirror.state_dict()["w1"], before["w1"])


def test_training_that_helps_is_kept() -> None:
    learner = _learner("0.5%", widths=(2, 4, 8), learning_rate=0.005, epochs=8)
    notices: list[str] = []
    learner.emit = lambda event: (
        notices.append(event.message) if isinstance(event, Notice) else None
    )
    outcome = learner.run()
    assert not notices
    assert outcome.best_epoch > 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (Stopped("terminated"), "terminated"),
        (Stopped("hung up"), "hung up"),
    ],
)
def test_what_stops_a_run_is_its_reason(error, reason) -> None:
    def stop(event) -> None:
        if isinstance(event, StepDone):
            raise error

    outcome = _run(None, stop).outcome
    assert (outcome.complete, outcome.reason) == (False, reason)


def test_a_run_can_be_stopped_in_its_first_step() -> None:
    learner = _learner()

    def stop(*_):
        raise KeyboardInterrupt

    learner.loss = stop
    assert learner.run().reason == "interrupted"
    assert learner.guide.satisfied


@pytest.mark.parametrize("part", ["restore", "set_widths", "evaluate"])
def test_a_run_can_be_stopped_while_gates_settle(tmp_path, monkeypatch, part) -> None:
    """Whatever is half done then, the run ends within the bound and can go on."""
    owner = {"restore": loop.UntrainedState, "set_widths": Guide, "evaluate": Evaluator}[part]
    whole, stopped = getattr(owner, part), []

    def stop_once(self, *arguments):
        result = whole(self, *arguments)
        if not stopped:
            stopped.append(part)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, part, stop_once)
    output = tmp_path / "out.onnx"
    settings = {"epochs": 1, "bound": "1.5%", "direction": "gradient"}
    started = _run(output, **settings)
    assert started.outcome.reason == "interrupted"
    assert started.cost.rbop <= 0.015
    resumed = _run(output, **settings, resume=True)
    assert resumed.complete
    assert resumed.plan.to_json() == _run(None, **settings).plan.to_json()
