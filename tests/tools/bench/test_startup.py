"""One round of the package against itself: the report has a row for each command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools import ROOT
from tools.bench import startup as tool


def test_report(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tool, "_commit", lambda folder: "abc1234")
    output = tmp_path / "startup.md"
    arguments = ["--before", str(ROOT), "--rounds", "1", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["bench_startup.py", *arguments])

    tool.main()

    rows = [line.split("|")[1:-1] for line in output.read_text().splitlines() if "`" in line]
    times = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows if len(row) == 6}
    assert times.keys() == {"`import onnx_cgmq`", "`onnx-cgmq --help`"}
    assert all(seconds > 0 for row in times.values() for seconds in row)


def test_the_package_is_that_of_the_folder(tmp_path) -> None:
    (tmp_path / "onnx_cgmq").mkdir()
    (tmp_path / "onnx_cgmq" / "__init__.py").write_text("raise SystemExit(3)")
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        tool._run(("-c", "import onnx_cgmq"), tmp_path)
