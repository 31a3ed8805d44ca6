"""What a run keeps, how it learns and evaluates; where one that stopped early goes on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper
from toys import make_model, mlp, toy_data

from onnx_cgmq.bits import Role
from onnx_cgmq.config import Config
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import OutputError
from onnx_cgmq.events import EpochDone, StepDone
from onnx_cgmq.graph.insert import insert_gates
from onnx_cgmq.graph.prepare import prepare
from onnx_cgmq.learn import loop
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.loop import Learner, default_learning_rate, guided_steps, make_optimizer
from onnx_cgmq.learn.losses import ClassOutput, make_loss
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror
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


def _learner(batch="n", bound="3%", validation=None, **settings) -> Learner:
    """A learner on 192 samples; the same are held out unless others are given."""
    model = mlp(batch=batch)
    config = Config(**{"epochs": 4, "batch_size": 32, **settings})
    data = open_data(toy_data(mlp()), prepare(model))
    mirror, teacher = Mirror(insert_gates(model, config)), Mirror(prepare(model))
    calibrate(mirror, data)
    validation = data if validation is None else open_data(validation, prepare(model))
    classes = ClassOutput("y", is_probability=False)
    return Learner(
        mirror=mirror,
        guide=Guide(mirror, bound, steps=guided_steps(data, config)),
        teacher=Teacher(teacher, len(data)),
        validation_teacher=Teacher(teacher, len(validation)),
        train=data,
        validation=validation,
        loss=make_loss("auto", classes, data.has_labels),
        classes=classes,
        config=config,
        emit=lambda event: None,
    )


def test_a_float_mirror_has_the_teachers_accuracy_and_no_distance_to_it() -> None:
    learner = _learner()
    learner.loss = make_loss("teacher", learner.classes, True)
    loss, accuracy = learner.evaluate()
    assert abs(loss) < 1e-5
    assert accuracy == learner.teacher_accuracy() == 1


def test_entries_that_only_fill_a_batch_are_not_counted() -> None:
    """The last sample fills the last batch; its label is wrong here, so counting it would show."""
    held_out = {name: array[:12] for name, array in toy_data(mlp()).items()}
    held_out["label"] = held_out["label"].copy()
    held_out["label"][-1] = (held_out["label"][-1] + 1) % 3
    results = [
        (learner.evaluate(), learner.teacher_accuracy())
        for learner in (_learner(batch, validation=held_out) for batch in ("n", 8))
    ]
    (loss, accuracy), teacher_accuracy = results[0]
    assert accuracy == teacher_accuracy == pytest.approx(11 / 12)
    assert results[1][0] == pytest.approx((loss, accuracy))
    assert results[1][1] == teacher_accuracy


def test_without_labels_there_is_no_accuracy() -> None:
    held_out = {"x": toy_data(mlp())["x"]}
    learner = _learner(validation=held_out)
    assert learner.teacher_accuracy() is None
    assert learner.evaluate()[1] is None


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
    assert learner.evaluate()[0] == pytest.approx(best.validation_loss)
    assert learner.guide.satisfied


def test_learning_rates_warm_up_hold_and_fall_to_nearly_nothing() -> None:
    learner, rates = _learner(epochs=10, learning_rate=0.01), []
    step = learner._optimizer.step

    def watched() -> None:
        rates.append([group["lr"] for group in learner._optimizer.param_groups])
        step()

    learner._optimizer.step = watched
    learner.run()
    weights, ranges = np.array(rates).T
    assert len(weights) == learner.total_steps == 10 * STEPS
    np.testing.assert_allclose(weights / 0.01, ranges / learner.config.range_learning_rate)
    guided = guided_steps(learner.train, learner.config)
    np.testing.assert_allclose(weights[1 : guided + 1], 0.01)
    assert (np.diff(weights[guided:]) < 0).all()
    assert weights[-1] < 1e-4


def test_only_quantized_tensors_and_ranges_learn() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"], name="mul"),
        helper.make_node("MatMul", ["s", "w"], ["y"], name="matmul"),
    ]
    weights = {"scale": np.full(8, 2.0), "w": np.random.default_rng(0).normal(size=(8, 3))}
    mirror = Mirror(insert_gates(make_model(nodes, weights, [8])))
    optimizer, peaks = make_optimizer(mirror, Config(learning_rate=0.1, range_learning_rate=0.2))
    learning = {id(p) for group in optimizer.param_groups for p in group["params"]}
    ranges = [p for quantizer in mirror.quantizers.values() for p in quantizer.parameters()]
    assert learning == {id(mirror.value_parameters["w"]), *map(id, ranges)}
    assert not mirror.value_parameters["scale"].requires_grad
    assert peaks == [0.1, 0.2]


@pytest.mark.parametrize(("epochs", "batch_size", "steps"), [(4, 32, 6), (1, 1000, 1), (12, 64, 9)])
def test_gates_move_in_a_quarter_of_the_steps(epochs, batch_size, steps) -> None:
    data = open_data(toy_data(mlp()), prepare(mlp()))
    assert guided_steps(data, Config(epochs=epochs, batch_size=batch_size)) == steps


def test_the_default_learning_rate_falls_with_depth() -> None:
    def rate(weights: int) -> float:
        spec = SimpleNamespace(role=Role.WEIGHT)
        quantizers = {str(index): SimpleNamespace(spec=spec) for index in range(weights)}
        return default_learning_rate(SimpleNamespace(quantizers=quantizers))

    assert rate(1) == rate(4) == 2e-3
    assert rate(20) == pytest.approx(4e-4)
