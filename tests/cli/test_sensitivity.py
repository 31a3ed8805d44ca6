"""The command ``sensitivity``."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def measured(model, data, cli):
    return lambda *options: cli("sensitivity", model, "--data", data, *options)


def test_a_table(measured) -> None:
    done = measured()
    assert done.exit_code == 0
    assert "What each tensor costs" in done.stdout
    assert "2 tensors make up 80%" in done.stdout


def test_json_alone_is_on_stdout(measured, only_json) -> None:
    document = only_json(measured("--json", "--width", "2", "--samples", "3"))
    assert {tensor["name"] for tensor in document["tensors"]} == {"x", "w"}
    assert {tensor["width"] for tensor in document["tensors"]} == {2}
    assert document["samples"] == 3


def test_settings_from_a_file_and_options(measured, only_json, tmp_path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('widths = [2, 4]\nfix = { "x" = 4 }\n')
    document = only_json(measured("--json", "--config", settings, "--activation-widths", "4,8"))
    assert [tensor["name"] for tensor in document["tensors"]] == ["w"]
    assert set(document["tensors"][0]["alone"]) == {"2", "4"}


def test_a_report(measured, tmp_path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    done = measured("--report", tmp_path / "page.html")
    assert done.exit_code == 0
    assert "What each tensor costs" in (tmp_path / "page.html").read_text()
    assert "page.html" in done.stdout


def test_a_report_does_not_overwrite_what_is_read(measured, data) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    done = measured("--report", data)
    assert done.exit_code == 6
    assert "is the data itself" in done.stderr
    assert np.load(data)["x"].shape == (4, 2)


def test_a_plan_that_is_none(measured, data) -> None:
    assert measured("--plan", data).exit_code == 3
