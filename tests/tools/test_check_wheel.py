"""What the tool says of an environment, and that pip is left to itself there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent.parent / "tools" / "check_wheel.py"
VERSIONS = {"torch": "2.13.0", "onnx": "1.23.2", "onnxruntime": "1.31.1", "numpy": "2.4.6"}


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("check_wheel", TOOL)
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_wheel", tool)
    spec.loader.exec_module(tool)
    return tool


def test_a_row_has_versions_times_and_what_was_printed(tool) -> None:
    printed = ["RBOP 0.84%", "image  2.00 bits", "accuracy 98.70%"]
    outcome = tool.Outcome("3.12.1", VERSIONS, 0.251, 12.4, printed)
    assert outcome.row() == (
        "| 3.12.1 | 2.13.0 | 1.23.2 | 1.31.1 | 2.4.6 | 0.25 | 12 | 0.84% | 98.70% |"
    )


def test_snippets_that_print_no_accuracy_are_a_mistake(tool) -> None:
    with pytest.raises(ValueError, match="not enough values"):
        tool.Outcome("3.12.1", VERSIONS, 0.2, 12.0, ["RBOP 0.84%"]).row()


def test_pip_has_no_constraints(tool, monkeypatch) -> None:
    monkeypatch.setenv("PIP_CONSTRAINT", "pins.txt")
    monkeypatch.setenv("PYTHONPATH", "here")
    monkeypatch.setenv("LANG", "C")
    environment = tool._plain()
    assert environment["PIP_CONFIG_FILE"] == "/dev/null"
    assert environment["LANG"] == "C"
    assert not {"PIP_CONSTRAINT", "PYTHONPATH"} & environment.keys()
