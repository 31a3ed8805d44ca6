"""The command ``curve``."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture
def drawn(model, data, cli, tmp_path):
    options = ("--widths", "2,8", "--epochs", "1")
    return lambda *more: cli(
        "curve", model, "--data", data, "-o", tmp_path / "out", *options, *more
    )


def test_models_table_and_charts(drawn, tmp_path) -> None:
    done = drawn("--bounds", "6.25%,2%")
    assert done.exit_code == 0, done.stderr
    assert "judged on" in done.stdout
    assert "point 2%" in done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"float.6.25.onnx", "float.6.25.plan.json", "float.2.onnx", "curve.json"}
    for name in ("float.6.25.onnx", "float.2.onnx", "curve.json"):
        assert str(tmp_path / "out" / name) in done.stdout


def test_charts_need_a_package(drawn, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("onnx_cgmq.cli.curve.find_spec", lambda _: None)
    done = drawn("--bounds", "6.25%", "--quiet")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "onnx-cgmq[report]" in done.stderr
    assert not (tmp_path / "out" / "curve.svg").exists()


def test_json_alone_is_on_stdout(drawn, only_json, tmp_path) -> None:
    done = drawn("--bounds", "6.25%", "--bounds", "2%", "--json")
    document = only_json(done)
    assert [point["bound"] for point in document["points"]] == ["6.25%", "2%"]
    assert document == json.loads((tmp_path / "out" / "curve.json").read_text())


def test_a_report(drawn, tmp_path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    done = drawn("--points", "2", "--report", tmp_path / "page.html")
    assert done.exit_code == 0
    assert "Quality against cost" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "out" / "curve.svg").exists()
    assert (tmp_path / "out" / "curve.png").exists()


def test_data_is_not_overwritten_by_the_log(drawn, data) -> None:
    done = drawn("--log", data)
    assert done.exit_code == 6
    assert np.load(data)["x"].shape == (4, 2)


def test_a_bound_that_can_not_be_kept(drawn) -> None:
    assert drawn("--bounds", "0.01%").exit_code == 5
