"""One round of the package against itself: the report has a row for each command."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def tool():
    path = ROOT / "tools" / "bench_startup.py"
    spec = importlib.util.spec_from_file_location("bench_startup", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_report(tool, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tool, "_commit", lambda folder: "abc1234")
    output = tmp_path / "startup.md"
    arguments = ["--before", str(ROOT), "--rounds", "1", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["bench_startup.py", *arguments])

    tool.main()

    rows = [line.split("|")[1:-1] for line in output.read_text().splitlines() if "`" in line]
    times = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows if len(row) == 6}
    assert times.keys() == {"`import onnx_cgmq`", "`onnx-cgmq --help`"}
    assert all(seconds > 0 for row in times.values() for seconds in row)


def test_the_package_is_that_of_the_folder(tool, tmp_path) -> None:
    (tmp_path / "onnx_cgmq").mkdir()
    (tmp_path / "onnx_cgmq" / "__init__.py").write_text("raise SystemExit(3)")
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        tool._run(("-c", "import onnx_cgmq"), tmp_path)
