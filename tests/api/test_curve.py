"""curve(): points that keep their bounds, none worse than a cheaper one, from one run."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import onnx
import pytest
from rich.console import Console

import onnx_cgmq
from onnx_cgmq.api import curve as module
from onnx_cgmq.api.curve import curve
from onnx_cgmq.api.curve_points import Curve, CurvePoint, find_knee
from onnx_cgmq.api.float_agreement import FloatAgreement
from onnx_cgmq.api.points import PointMaker, shortened
from onnx_cgmq.api.quality import Quality
from onnx_cgmq.contract.events import Finished, PointDone, StageDone, StageProgress
from onnx_cgmq.errors import AgreementError, BoundError, ConfigError, ModelError, OutputError
from onnx_cgmq.learn.schedule import Schedule, Stages
from tests.support.staged import STAGES, correlated
from tests.support.toys import convnet, mlp, toy_data


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr("onnx_cgmq.learn.schedule._stages", lambda *_: STAGES)


def _data(model):
    return correlated(model, 120, 0)


def _points(found: Curve) -> list[str]:
    return [point.bound for point in found.points]


def test_every_point_is_a_file_that_keeps_its_bound(tmp_path) -> None:
    model, data, events = convnet(), _data(convnet()), []
    found = curve(model, data, points=4, output=tmp_path / "out", progress=events.append)
    assert (found.complete, found.reason, found.measure) == (True, "complete", Quality.SNR)
    assert _points(found)[0] == "6.25%"
    assert len(found.points) == 4
    for point in found.points:
        assert point.file.parent == tmp_path / "out"
        check = onnx_cgmq.verify(model, point.file, data, bound=point.bound)
        assert check.rbop == point.share == onnx_cgmq.inspect(point.file).rbop
        assert point.file.stat().st_size == point.bytes
        plan = onnx_cgmq.BitPlan.load(point.file.with_suffix(".plan.json"))
        assert plan.cost.rbop == point.share
    shares = [point.share for point in found.points]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(2 * 2 / 1024)
    qualities = [point.quality for point in found.points]
    assert qualities == sorted(qualities, reverse=True)
    assert json.loads((tmp_path / "out" / "curve.json").read_text()) == json.loads(found.to_json())
    done = [event for event in events if isinstance(event, PointDone)]
    assert [event.bound for event in done] == _points(found)
    assert [type(event) for event in events].count(Finished) == 1


@pytest.mark.slow
def test_losses_are_measured_once_for_all_points() -> None:
    model, events = convnet(), []
    curve(model, _data(model), ["3%", "2%", "1%"], progress=events.append)
    measured = [e for e in events if isinstance(e, StageProgress) and e.stage == "allocate"]
    assert [event.done for event in measured] == list(range(1, measured[0].total + 1))
    ended = [event.stage for event in events if isinstance(event, StageDone)]
    assert ended == ["calibrated", "reconstructed"] * 3


@pytest.mark.slow
def test_a_point_does_not_depend_on_those_before_it() -> None:
    """Every bound starts from the calibrated state; only losses are shared."""
    model, data = convnet(), _data(convnet())
    together = curve(model, data, ["3%", "2%"], points=2)
    alone = curve(model, data, ["2%", "1%"])
    assert together.points[1].plan.to_json() == alone.points[0].plan.to_json()
    assert together.points[1].quality == alone.points[0].quality


@pytest.mark.slow
def test_one_point_is_the_run_of_quantize() -> None:
    model, data = convnet(), _data(convnet())
    (point,) = curve(model, data, "2.5%").points
    assert point.plan.to_json() == onnx_cgmq.quantize(model, data, "2.5%").plan.to_json()


def test_training_end_to_end_has_points_too() -> None:
    model = mlp()
    found = curve(model, toy_data(model), [0.0625, "2%"], epochs=2, batch_size=64)
    assert found.measure is Quality.ACCURACY
    assert found.points[0].quality >= found.points[1].quality
    assert [point.share <= limit for point, limit in zip(found.points, (0.0625, 0.02), strict=True)]


@pytest.mark.slow
def test_other_costs() -> None:
    model = convnet()
    found = curve(model, _data(model), "size:30%,size:15%")
    assert found.cost == "size"
    assert [point.share <= 0.3 for point in found.points]
    assert found.points[1].share <= 0.15
    assert found.points[1].check.weight_bytes < found.points[0].check.weight_bytes


@pytest.mark.parametrize(
    ("bounds", "error", "words"),
    [
        (["6%", "size:20%"], BoundError, "one kind of cost"),
        (["6%", "0.01%"], BoundError, "below what is possible"),
        ([], BoundError, "no bound is given"),
        (["6%", "6 %x"], BoundError, "not a number"),
    ],
)
def test_bounds_that_make_no_curve(bounds, error, words) -> None:
    with pytest.raises(error, match=words):
        curve(mlp(), _data(mlp()), bounds)


def test_odd_requests_are_refused(tmp_path) -> None:
    data = _data(mlp())
    with pytest.raises(ConfigError, match="at least one"):
        curve(mlp(), data, points=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't make the folder"):
        curve(mlp(), data, output=tmp_path / "file")
    with pytest.raises(OutputError, match="files of one name"):
        curve(mlp(), data, ["60e-1%", "60e+1%"], output=tmp_path)


def test_a_file_of_the_user_is_not_overwritten(tmp_path) -> None:
    source = tmp_path / "float.6.25.onnx"
    onnx.save(mlp(), source)
    (tmp_path / "float.onnx").symlink_to(source)
    before = source.read_bytes()
    with pytest.raises(OutputError, match="the float model itself"):
        curve(tmp_path / "float.onnx", _data(mlp()), ["6.25%"], output=tmp_path)
    assert source.read_bytes() == before


def test_where_all_widths_are_fixed_there_is_one_point() -> None:
    found = curve(mlp(), _data(mlp()), widths=(8,))
    assert len(found.points) == 1
    assert found.knee is None


# -- ends -----------------------------------------------------------------------------------------


def _stopping(at: int, error: BaseException):
    seen = []

    def progress(event) -> None:
        if isinstance(event, StageProgress) and event.stage == "reconstruct":
            seen.append(event)
            if len(seen) == at:
                raise error

    return progress


def test_ctrl_c_keeps_the_points_that_are_done(tmp_path) -> None:
    model = convnet()
    progress = _stopping(5, KeyboardInterrupt())  # in the second of three points, of 3 parts each
    found = curve(model, _data(model), ["6%", "3%", "2%"], output=tmp_path, progress=progress)
    assert (found.complete, found.reason) == (False, "interrupted")
    assert _points(found) == ["6%"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curve.json", "model.6.onnx", "model.6.plan.json",
    ]  # fmt: skip


def test_ctrl_c_in_the_first_point_keeps_what_it_has() -> None:
    model = convnet()
    found = curve(model, _data(model), ["6%", "3%"], progress=_stopping(1, KeyboardInterrupt()))
    assert (found.reason, _points(found)) == ("interrupted", ["6%"])


def test_ctrl_c_before_there_is_a_point_ends_the_call() -> None:
    def stop(_) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        curve(mlp(), _data(mlp()), ["6%", "3%"], progress=stop)


def test_a_time_limit_holds_for_the_whole_curve(monkeypatch) -> None:
    late = []
    monkeypatch.setattr(PointMaker, "is_late", property(lambda _: late.append(1) or len(late) > 1))
    model = convnet()
    found = curve(model, _data(model), ["6%", "3%", "2%"], time_limit=1000)
    assert (found.complete, found.reason) == (False, "time limit")
    assert _points(found) == ["6%", "3%"]


def test_a_model_that_computes_something_else_is_left_out(monkeypatch) -> None:
    whole = PointMaker.point

    def point(maker, bound, schedule):
        if bound.text in wrong:
            raise AgreementError("not what was trained")
        return whole(maker, bound, schedule)

    monkeypatch.setattr(PointMaker, "point", point)
    wrong = {"6%"}
    found = curve(convnet(), _data(convnet()), ["6%", "3%"])
    assert (_points(found), found.complete, found.reason) == (["3%"], False, "points left out")
    assert "there is no point for 6%: not what was trained" in found.notes
    wrong = {"6%", "3%"}
    with pytest.raises(AgreementError):
        curve(convnet(), _data(convnet()), ["6%", "3%"])


def test_a_quality_that_can_not_be_told_ends_the_curve(monkeypatch) -> None:
    monkeypatch.setattr("onnx_cgmq.api.finish._agreement_with_float", lambda *_: None)
    with pytest.raises(ModelError, match="can't be told"):
        curve(mlp(), _data(mlp()), ["6%"])


# -- better cheaper points, knee -------------------------------------------------------------------


def _point(share: float, quality: float) -> CurvePoint:
    agreement = FloatAgreement(10, {}, None, None, 0, None, None)
    return CurvePoint(
        "learned", f"{share:.0%}", share, quality, agreement, None, None, None, seconds=share
    )


def test_a_worse_point_gets_the_model_of_the_best_cheaper_one() -> None:
    points = [_point(0.4, 10), _point(0.3, 20), _point(0.2, 25), _point(0.1, 5)]
    notes = dict(module._improve(points))
    assert [point.quality for point in points] == [25, 25, 25, 5]
    assert [point.bound for point in points] == ["40%", "30%", "20%", "10%"]
    assert [point.share for point in points] == [0.2, 0.2, 0.2, 0.1]
    assert [point.taken_from for point in points] == ["20%", "20%", "", ""]
    assert [point.seconds for point in points] == [0.4, 0.3, 0.2, 0.1]
    assert sorted(notes) == [0, 1]
    assert "under 20%, which takes its place" in notes[0]


def test_a_better_cheaper_model_is_written_in_both_files(tmp_path, monkeypatch) -> None:
    qualities = iter([1.0, 2.0])

    def judged(self, _) -> float:
        self.measure = Quality.SNR
        return next(qualities)

    monkeypatch.setattr(PointMaker, "judged", judged)
    found = curve(convnet(), _data(convnet()), ["6%", "3%"], output=tmp_path)
    dear, cheap = found.points
    assert (dear.bound, dear.taken_from) == ("6%", "3%")
    assert dear.file.name == "model.6.onnx"
    assert dear.file.read_bytes() == cheap.file.read_bytes()
    assert any("takes its place" in note for note in found.notes)


def test_the_knee_stands_highest_above_the_chord() -> None:
    points = [_point(0.08, 30), _point(0.04, 29), _point(0.02, 18), _point(0.01, 10)]
    assert find_knee(points) is points[1]
    assert find_knee([*points[:2], replace(points[2], quality=28), points[3]]).share == 0.02


@pytest.mark.parametrize(
    ("qualities", "knee"),
    [
        ((30, 20, 10), None),  # a line
        ((30, 12, 10), None),  # below it
        ((20, 20, 20), 0.02),  # the cheapest is as good
        ((np.inf, 25, 10), 0.04),
        ((-np.inf, -np.inf, -np.inf), None),
    ],
)
def test_knees_of_odd_curves(qualities, knee) -> None:
    shares = (0.08, 0.04, 0.02)
    found = find_knee([_point(s, q) for s, q in zip(shares, qualities, strict=True)])
    assert (None if found is None else found.share) == knee


def test_two_points_have_no_knee() -> None:
    assert find_knee([_point(0.2, 2), _point(0.1, 1), _point(0.1, 1)]) is None


# -- shares of a run -------------------------------------------------------------------------------


def test_all_points_together_learn_as_long_as_a_run_and_a_half() -> None:
    staged = Schedule(Stages(32, reconstruction_steps=300, batch_size=16), epochs=0)
    assert shortened(staged, 6).stages.reconstruction_steps == 75
    assert shortened(staged, 2).stages.reconstruction_steps == 225
    assert shortened(staged, 1) == staged
    assert shortened(staged, 1000).stages.reconstruction_steps == 1
    assert shortened(Schedule(None, epochs=12), 6).epochs == 3
    assert shortened(Schedule(None, epochs=1), 6).epochs == 1
    silent = Schedule(Stages(32, reconstruction_steps=0, batch_size=16), epochs=0)
    assert shortened(silent, 6) == silent


# -- shown -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_has_all_points_and_the_knee() -> None:
    found = curve(convnet(), _data(convnet()), ["6%", "3%"], compare=True)
    console = Console(width=80, record=True, file=StringIO())
    console.print(found.table())
    text = console.export_text()
    names = ["6%", "3%", "uniform 8/8", "uniform 4/8", "uniform 4/4", "quantize_static"]
    assert all(name in text for name in names)
    assert "judged on 12 held-out samples" in text
    assert [point.name for point in found.compared] == names[2:]
    assert [point.share for point in found.compared] == [0.0625, 0.03125, 0.015625, 0.0625]
    for point in found.compared[:3]:
        assert set(map(int, _widths(point))) == {int(b) for b in point.name[8:].split("/")}


@pytest.mark.slow
def test_what_can_not_be_compared_is_left_out_with_a_note(monkeypatch) -> None:
    def fail(*_):
        raise ModelError("no way")

    monkeypatch.setattr("onnx_cgmq.api.comparison.quantize_static", fail)
    found = curve(mlp(), _data(mlp()), ["6.25%"], compare=True, widths=(8,))
    assert [point.method for point in found.compared] == ["uniform 8/8"]
    assert "quantize_static is left out of the comparison: no way" in found.notes


def _widths(point: CurvePoint) -> list[int]:
    roles = (onnx_cgmq.Role.WEIGHT, onnx_cgmq.Role.ACTIVATION)
    return [t.widths for t in point.plan.tensors.values() if t.role in roles and t.name != "r1"]


@pytest.mark.slow
def test_a_page_and_charts(tmp_path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    from onnx_cgmq.reporting.curve_page import save_charts

    found = curve(convnet(), _data(convnet()), ["6%", "3%", "1%"])
    html = onnx_cgmq.html_report(found)
    for number, point in enumerate(found.points):
        assert f'<tr id="point-{number}"><td>{point.bound}</td>' in html
        assert f'href="#point-{number}"' in html
    assert "Quality against cost" in html
    svg, png = save_charts(found, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert "signal-to-noise ratio, dB" in text
    assert "var(--" not in text
    assert "#01010" not in text
