"""Which runs are made, and how the table shows them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from onnx_cgmq import ModelError
from tools.bench import accuracy as tool

RECORD = {
    "score": 0.5,
    "float_score": 0.75,
    "snr_db": 20.0,
    "rbop": 0.03125,
    "bytes": 1000,
    "float_bytes": 4000,
    "processor_seconds": 90,
    "peak_bytes": 2e9,
}


def wanted(**given: object) -> list[tuple[str, str]]:
    arguments = argparse.Namespace(**{"only": "", "methods": "", "environments": None, **given})
    return [(case.name, method) for case, method in tool._wanted(arguments)]


def test_other_tools_run_where_there_are_environments() -> None:
    assert not {method for _, method in wanted()} & tool.peers.METHODS.keys()
    chosen = wanted(only="resnet", methods="nncf,uniform", environments=Path("envs"))
    assert ("resnet20", "nncf 8/8") in chosen
    assert ("resnet20", "uniform 4/8") in chosen
    assert {case for case, _ in chosen} == {"resnet20"}


def test_only_the_files_of_other_tools_may_have_no_cost(monkeypatch, tmp_path) -> None:
    def refuse(_: Path) -> None:
        raise ModelError("the rank is unknown")

    monkeypatch.setattr(tool.cgmq, "inspect", refuse)
    assert tool.rbop("nncf 8/8", tmp_path) is None
    assert tool.rbop("static INT8", tmp_path) is None
    with pytest.raises(ModelError):
        tool.rbop("8/8", tmp_path)


def test_the_table_has_notes_failures_and_versions(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tool, "RESULTS", tmp_path)
    monkeypatch.setattr(tool, "TABLE", tmp_path / "table.md")
    records = {
        "aimet AdaRound 4/8": {**RECORD, "tool": "aimet-onnx 2.42.0", "note": "7 iterations"},
        "static INT8": {**RECORD, "rbop": None},
        "nncf 8/8": {"error": "a|b"},
    }
    for method, record in records.items():
        tool._result("magika", method).write_text(json.dumps(record))
    tool.table(argparse.Namespace())
    text = (tmp_path / "table.md").read_text()
    assert "other tools: aimet-onnx 2.42.0; " in text
    rows = [line for line in text.splitlines() if line.startswith("| magika")]
    figures = "1,000 | 0.25 | 1.5 | 2.00 |"
    assert rows == [
        f"| magika | static INT8 | same class 50.00 % | 75.00 % | 20.0 |  | {figures}",
        "| magika | nncf 8/8 | failed: a/b | | | | | | | |",
        "| magika | aimet AdaRound 4/8, 7 iterations | same class 50.00 % | 75.00 % | 20.0 "
        f"| 3.125 | {figures}",
    ]
