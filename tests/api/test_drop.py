"""The most that may be lost: how it is written, judged, and searched for."""

from __future__ import annotations

import math

import pytest

import onnx_cgmq
from onnx_cgmq.api import drop_search
from onnx_cgmq.api.agreement import OutputAgreement
from onnx_cgmq.api.drop import Drop, MaxDrop
from onnx_cgmq.api.float_agreement import FloatAgreement
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.api.points import PointMaker
from onnx_cgmq.api.quality import Quality
from onnx_cgmq.contract.events import Notice, PointDone, StageProgress
from onnx_cgmq.errors import BoundError, ConfigError, DataError
from tests.support.staged import STAGES, correlated
from tests.support.toys import convnet, mlp, toy_data


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr("onnx_cgmq.learn.schedule._stages", lambda *_: STAGES)


# -- reading and judging ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "quality", "amount"),
    [
        ("1%", Quality.ACCURACY, 0.01),
        (" .5 % ", Quality.ACCURACY, 0.005),
        (0.02, Quality.ACCURACY, 0.02),
        ("2%:class", Quality.CLASSES, 0.02),
        ("0%:class", Quality.CLASSES, 0.0),
        ("snr:30dB", Quality.SNR, 30),
        ("SNR: 27.5 db", Quality.SNR, 27.5),
        ("snr:30", Quality.SNR, 30),
    ],
)
def test_drops_are_read(text, quality, amount) -> None:
    most = MaxDrop.parse(text)
    assert most.quality is quality
    assert most.amount == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "1", "100%", "-1%", "1%:top5", "snr:dB", "30dB", "snr:-3dB"])
def test_other_texts_are_refused(text) -> None:
    with pytest.raises(ConfigError, match=r"can't be read; give '1%'"):
        MaxDrop.parse(text)


@pytest.mark.parametrize("number", [math.nan, math.inf, -0.1, 1.0])
def test_other_numbers_are_refused(number) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        MaxDrop.parse(number)


def _agreement(accuracy=0.9, float_accuracy=0.92, same_class=0.95, snr=25.0) -> FloatAgreement:
    outputs = {"a": OutputAgreement(40.0, 0.1, 10, 0), "y": OutputAgreement(snr, 0.1, 10, 0)}
    return FloatAgreement(100, outputs, "y", same_class, 100, accuracy, float_accuracy)


@pytest.mark.parametrize(
    ("asked", "kept", "amount", "error"),
    [
        ("2%", True, 0.02, math.sqrt((0.05 - 0.02**2) / 100)),
        ("1.9%", False, 0.02, math.sqrt((0.05 - 0.02**2) / 100)),
        ("5%:class", True, 0.05, math.sqrt(0.05 * 0.95 / 100)),
        ("4%:class", False, 0.05, math.sqrt(0.05 * 0.95 / 100)),
        ("snr:25dB", True, 25.0, None),
        ("snr:26dB", False, 25.0, None),
    ],
)
def test_a_drop_is_judged_with_its_error(asked, kept, amount, error) -> None:
    drop = MaxDrop.parse(asked).judged(_agreement())
    assert drop.kept is kept
    assert drop.amount == pytest.approx(amount)
    assert drop.error == (None if error is None else pytest.approx(error))
    assert drop.samples == 100


def test_no_change_at_all_has_the_error_of_one_sample() -> None:
    drop = MaxDrop.parse("1%:class").judged(_agreement(same_class=1.0))
    assert (drop.amount, drop.error) == (0.0, 0.01)


@pytest.mark.parametrize(
    ("asked", "agreement", "needs"),
    [
        ("1%", _agreement(accuracy=None, float_accuracy=None), "labels"),
        ("1%:class", _agreement(same_class=None), "class scores"),
        ("snr:30dB", FloatAgreement(5, {}, None, None, 0, None, None), "a float output"),
        ("snr:30dB", None, "onnxruntime runs"),
    ],
)
def test_a_drop_that_can_not_be_told(asked, agreement, needs) -> None:
    with pytest.raises(DataError, match=f"can't be told: it needs .*{needs}"):
        MaxDrop.parse(asked).judged(agreement)


def test_too_few_samples_for_a_drop_are_noted() -> None:
    assert "one of 50 held-out samples is 2.00%" in MaxDrop.parse("1%").coarse_note(50)
    assert MaxDrop.parse("1%").coarse_note(100) == ""
    assert "of 6 held-out samples" in MaxDrop.parse("snr:30dB").coarse_note(6)
    assert MaxDrop.parse("snr:30dB").coarse_note(32) == ""


# -- searching --------------------------------------------------------------------------------


def _data(model, count=200):
    return correlated(model, count, 0)


@pytest.mark.slow
def test_the_smallest_cost_that_is_enough_is_found(tmp_path) -> None:
    model, data, events = convnet(), _data(convnet()), []
    output = tmp_path / "out.onnx"
    result = quantize(model, data, max_drop="snr:15dB", output=output, progress=events.append)
    assert result.complete
    assert result.drop.kept
    assert result.float_agreement.outputs["y"].snr_db == result.drop.amount >= 15
    tried = {e.share: e.text for e in events if isinstance(e, PointDone)}
    cheaper = [text for share, text in tried.items() if share < 0.8 * result.cost.rbop]
    assert cheaper
    assert all(float(text.split()[0]) < 15 for text in cheaper)
    assert onnx_cgmq.inspect(output).rbop == result.cost.rbop < 0.06
    assert onnx_cgmq.verify(result.mirror, output, data).agrees
    measured = [e for e in events if isinstance(e, StageProgress) and e.stage == "allocate"]
    assert [event.done for event in measured] == list(range(1, measured[0].total + 1))
    assert {type(event) for event in result.events} >= {PointDone, onnx_cgmq.StageDone}


@pytest.mark.slow
def test_a_bound_is_kept_even_if_the_drop_can_not_be() -> None:
    model, data = convnet(), _data(convnet())
    result = quantize(model, data, "2%", max_drop="snr:40dB")
    assert (result.complete, result.drop.kept) == (True, False)
    assert result.cost.rbop <= 0.02
    assert result.plan.to_json() == quantize(model, data, "2%").plan.to_json()


@pytest.mark.slow
def test_with_a_bound_on_the_size_the_size_is_made_small() -> None:
    model, data = convnet(), _data(convnet())
    result = quantize(model, data, ("size:26%", "6%"), max_drop="snr:15dB")
    assert result.drop.kept
    assert result.cost.rbop <= 0.06
    report = onnx_cgmq.verify(model, result.model, data, bound=("size:26%", "6%"))
    assert report.weight_bytes < 0.2 * 4 * 346


def test_what_a_drop_needs_is_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match="--max-drop"):
        quantize(mlp(), _data(mlp()))
    with pytest.raises(ConfigError, match="can't be resumed"):
        quantize(mlp(), _data(mlp()), max_drop="1%", resume=True)
    with pytest.raises(BoundError, match="below what is possible"):
        quantize(mlp(), _data(mlp()), "0.01%", max_drop="snr:5dB")
    with pytest.raises(DataError, match="labels"):
        quantize(mlp(), _data(mlp()), max_drop="1%", output=tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_accuracy_with_labels() -> None:
    model, told = mlp(), []
    result = quantize(
        model, toy_data(model), max_drop="50%", epochs=1, batch_size=64, progress=told.append
    )
    assert result.drop.kept
    assert "of accuracy lost" in result.drop.text
    assert result.drop.amount <= 0.5
    assert not any("held-out samples is" in e.message for e in told if isinstance(e, Notice))


# -- ends, with trials that cost nothing --------------------------------------------------------


class Trials:
    """Stands in for learning: a model is good enough down to a cost."""

    def __init__(self, monkeypatch, enough: float, stop=None, full_fails=False) -> None:
        self.made: list[float] = []
        self._enough, self._stop, self._full_fails = enough, stop, full_fails
        whole, search = PointMaker.result, self

        def result(maker, bounds, schedule):
            search.made.append(min(bound.limit for bound in bounds))
            if search._stop is not None and len(search.made) == search._stop:
                raise KeyboardInterrupt
            return whole(maker, bounds, schedule)

        def judged(most, _) -> Drop:
            kept = search.made[-1] >= search._enough
            if search._full_fails and search.made.count(search.made[-1]) > 1:
                kept = False
            return Drop(most.text, "as asked" if kept else "too much", 0.0, None, kept, 1)

        monkeypatch.setattr(PointMaker, "result", result)
        monkeypatch.setattr(MaxDrop, "judged", judged)
        monkeypatch.setattr(drop_search, "_TRIALS", 3)


def test_ctrl_c_gives_the_cheapest_trial_that_was_enough(monkeypatch, tmp_path) -> None:
    trials = Trials(monkeypatch, enough=0, stop=3)
    output = tmp_path / "out.onnx"
    result = quantize(mlp(), _data(mlp()), max_drop="snr:1dB", output=output)
    assert (result.complete, result.outcome.reason) == (False, "interrupted")
    assert result.drop.kept
    assert result.cost.bops <= trials.made[1]
    assert onnx_cgmq.verify(result.mirror, output, _data(mlp())).agrees
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["out.onnx", "out.plan.json"]


def test_ctrl_c_before_a_trial_is_done_ends_the_call(monkeypatch) -> None:
    Trials(monkeypatch, enough=0, stop=1)
    with pytest.raises(KeyboardInterrupt):
        quantize(mlp(), _data(mlp()), max_drop="snr:1dB")


def test_ctrl_c_without_any_trial_that_was_enough_gives_the_last(monkeypatch) -> None:
    Trials(monkeypatch, enough=math.inf, stop=2)
    result = quantize(mlp(), _data(mlp()), max_drop="snr:1dB")
    assert (result.outcome.reason, result.drop.kept) == ("interrupted", False)


def test_a_time_limit_ends_the_search(monkeypatch) -> None:
    Trials(monkeypatch, enough=0)
    monkeypatch.setattr(PointMaker, "is_late", True)
    result = quantize(mlp(), _data(mlp()), max_drop="snr:1dB", time_limit=1000)
    assert (result.complete, result.outcome.reason) == (False, "time limit")
    assert result.drop.kept


@pytest.mark.slow
def test_a_trial_is_kept_where_the_last_run_loses_more(monkeypatch) -> None:
    trials, told = Trials(monkeypatch, enough=0, full_fails=True), []
    result = quantize(mlp(), _data(mlp()), max_drop="snr:1dB", progress=told.append)
    assert result.drop.kept
    assert trials.made[-1] == trials.made[-2]
    assert any("its model is taken" in e.message for e in told if isinstance(e, Notice))
    assert onnx_cgmq.verify(result.mirror, result.model, _data(mlp())).agrees
