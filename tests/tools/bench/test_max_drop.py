"""The promise is judged on other samples, with the chance that both shares have."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.toys import mlp
from tools.bench import max_drop as tool

SHARE = {
    "asked": "2%:class",
    "found": 0.02,
    "found_error": 0.01,
    "held_out": 100,
    "judged": 400,
    "changed": 0.04,
    "snr_db": 20.0,
    "snr_error": 0.5,
    "rbop": 0.03,
    "seconds": 12.0,
}


@pytest.mark.parametrize(
    ("changed", "kept"), [(0.0, True), (0.04, True), (0.049, True), (0.06, False)]
)
def test_a_share_may_be_larger_by_chance(changed: float, kept: bool) -> None:
    row = tool._row("m", {**SHARE, "changed": changed})
    assert ("| yes |" in row) is kept


@pytest.mark.parametrize(("ratio", "kept"), [(31.0, True), (29.1, True), (28.9, False)])
def test_a_ratio_may_be_smaller_by_chance(ratio: float, kept: bool) -> None:
    row = tool._row("m", {**SHARE, "asked": "snr:30dB", "found": 30.2, "snr_db": ratio})
    assert ("| yes |" in row) is kept


def test_files_are_judged_by_all_measures(tmp_path: Path) -> None:
    source, written = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(mlp(0), source)
    onnx.save(mlp(1), written)
    values = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    labels = np.zeros(50, np.int64)
    found = tool.judge(source, written, {"x": values, "label": labels}, 20)
    assert found["judged"] == 50
    assert 0 < found["changed"] <= 1
    assert abs(found["lost"]) <= found["changed"]
    assert found["snr_error"] > 0
    assert found["snr_db"] < 10


def test_the_table_has_the_models_that_were_measured(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tool, "RESULTS", tmp_path)
    monkeypatch.setattr(tool, "TABLE", tmp_path / "table.md")
    (tmp_path / "magika.json").write_text(json.dumps(SHARE))
    tool.table(argparse.Namespace())
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert [row for row in rows if row.startswith("| magika")] == [
        "| magika | 2%:class | 100 | 2.00% | 400 | 4.00% | 2.80% | yes | 3.00 | 12 |"
    ]
