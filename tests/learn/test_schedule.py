"""What a run does, by its settings, its data and the model."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.data.source import open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn import schedule as module
from onnx_cgmq.learn.schedule import (
    CAREFUL_PACE,
    EPOCHS,
    MOVES,
    PACE,
    RECONSTRUCTION_SAMPLES,
    Schedule,
    Stages,
    choose_schedule,
)
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from tests.support.toys import mlp

BYTES = 1000  # of the activations, for one sample


@pytest.fixture(autouse=True)
def _usual_steps(monkeypatch, usual_steps) -> None:
    monkeypatch.setattr(module, "STEPS", usual_steps)


def _schedule(count: int = 200, labels: bool = False, **settings) -> Schedule:
    config, float_model = Config.create(**settings), prepare(mlp())
    data = {"x": np.zeros((count, 8), dtype=np.float32)}
    if labels:
        data["label"] = np.zeros(count, dtype=np.int64)
    mirror = Mirror(insert_gates(float_model, config))
    return choose_schedule(config, open_data(data, float_model), mirror, BYTES)


@pytest.mark.parametrize("given", [
    {},
    {"labels": True},
    {"count": 6000},
    {"count": 6000, "labels": True, "effort": "fast"},
    {"effort": "best"},
    {"direction": "fisher"},
    {"prune": False, "weight_ranges": "channel"},
])  # fmt: skip
def test_a_run_goes_in_stages(given) -> None:
    found = _schedule(**given)
    assert found.stages is not None
    assert found.epochs == 0


@pytest.mark.parametrize(
    ("given", "epochs", "pace"),
    [
        ({"epochs": 3}, 3, CAREFUL_PACE),
        ({"epochs": 3, "effort": "fast"}, 3, CAREFUL_PACE),
        ({"epochs": 3, "learning_rate": 0.01}, 3, 1),
        ({"epochs": 3, "count": 6000}, 3, PACE),
        ({"count": 6000, "labels": True}, EPOCHS, PACE),
    ],
)
def test_training_end_to_end_follows_the_stages(given, epochs, pace) -> None:
    found = _schedule(**given)
    assert found.stages is not None
    assert (found.epochs, found.pace) == (epochs, pace)


@pytest.mark.parametrize("given", [
    {"granularity": "channel"},
    {"activation_granularity": "element", "target": "generic"},
    {"direction": "gradient"},
])  # fmt: skip
def test_gates_move_while_weights_train(given) -> None:
    assert _schedule(**given) == Schedule(None, EPOCHS)
    assert _schedule(**given, epochs=3) == Schedule(None, 3)


def test_target_values_are_labels_too() -> None:
    config, float_model = Config.create(), prepare(mlp())
    arrays = {"x": np.zeros((6000, 8), np.float32), "y": np.zeros((6000, 3), np.float32)}
    mirror = Mirror(insert_gates(float_model, config))
    found = choose_schedule(config, open_data(arrays, float_model), mirror, BYTES)
    assert found.epochs == EPOCHS


def _stages(**given) -> Stages:
    found = _schedule(**given).stages
    assert found is not None
    return found


def test_more_effort_means_more_steps() -> None:
    fast, normal, best = (_stages(effort=effort) for effort in ("fast", "normal", "best"))
    assert fast.reconstruction_steps == 60
    assert (normal.reconstruction_steps, best.reconstruction_steps) == (300, 1000)
    assert fast.measured_samples == normal.measured_samples == 200  # all that there are


def test_a_large_model_has_fewer_steps_but_some(monkeypatch) -> None:
    monkeypatch.setattr(module, "total_macs", lambda ops: 200_000_000_000)
    normal, best = _stages(), _stages(effort="best")
    assert normal.reconstruction_steps == 40
    assert 40 < best.reconstruction_steps == 100
    assert normal.measured_samples == 8


def test_a_time_limit_takes_the_place_of_the_effort_where_it_is_shorter(monkeypatch) -> None:
    monkeypatch.setattr(module, "total_macs", lambda ops: 20_000_000)
    free, short = _stages(effort="best"), _stages(effort="best", time_limit=200)
    assert short.reconstruction_steps < free.reconstruction_steps
    assert _stages(effort="best", time_limit=1e6) == free


def test_there_are_no_more_samples_in_a_batch_than_half_of_all() -> None:
    assert _stages().batch_size == 16
    assert _stages(batch_size=8).batch_size == 8
    assert _stages(count=10).batch_size == 5
    assert _stages(count=10).measured_samples == 10
    assert _stages(count=1).batch_size == 1


def test_gates_move_as_often_as_the_schedule_says() -> None:
    data = open_data({"x": np.zeros((320, 8), np.float32)}, prepare(mlp()))
    assert Schedule(Stages(8, 0, 8), 0).guided_steps(data, 32) == 0
    assert Schedule(Stages(8, 0, 8), 0).moves(data, 32) == MOVES
    assert Schedule(None, 4).moves(data, 32) == Schedule(None, 4).guided_steps(data, 32) == 10


def test_no_more_samples_are_stored_than_steps_use() -> None:
    assert Stages(8, 60, 16).stored_samples == 960
    assert Stages(8, 1000, 16).stored_samples == RECONSTRUCTION_SAMPLES
    assert Stages(8, 2, 16).stored_samples == 256  # of which some choose the best state


def test_more_work_is_expected_to_take_longer() -> None:
    stages = Stages(measured_samples=8, reconstruction_steps=10, batch_size=4)
    few = stages.expected_seconds(0.01, samples=20, passes=0)
    assert few == pytest.approx(0.01 * (10 * 5 * 4 + 20 * 4 + 2 * 20))
    assert stages.expected_seconds(0.01, samples=20, passes=6) == pytest.approx(
        few + 0.01 * 6 * 8 / 2
    )
    assert Stages(8, 0, 4).expected_seconds(0.01, samples=20, passes=0) == 0
    many = stages.expected_seconds(0.01, samples=10**6, passes=0)
    assert many == stages.expected_seconds(0.01, samples=stages.stored_samples, passes=0)
    assert Schedule(stages, 0).expected_seconds(0.01, samples=20, passes=0) == few
    epochs = Schedule(stages, 3).expected_seconds(0.01, samples=20, passes=0)
    assert epochs == pytest.approx(few + 3 * 20 * 5 * 0.01)
    assert Schedule(None, 3).expected_seconds(0.01, samples=20, passes=0) is None
