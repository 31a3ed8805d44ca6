"""A short run on tiny convolutions: what the tool prints is the table of a target."""

from __future__ import annotations

import sys

import numpy as np

from onnx_cgmq.settings import load_target
from tools.measure import costs as tool

TARGET = "[weights]\nwidths = [4]\n[activations]\nwidths = [8]\n"


def test_a_table_is_measured(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(tool, "CHANNELS", 4)
    monkeypatch.setattr(tool, "SIZE", 6)
    monkeypatch.setattr(sys, "argv", ["costs", "--widths", "4", "--rounds", "1"])
    tool.main()
    path = tmp_path / "mine.toml"
    path.write_text(TARGET + capsys.readouterr().out)
    table = load_target(path).cost
    assert table.unit == "ns"
    assert 0 < table.price(4, 8) <= table.float


def test_the_table_is_monotone() -> None:
    text = tool._table((2, 4), (4, 8), 1.0, np.array([[0.5, 0.4], [0.3, 2.0]]))
    assert text.splitlines()[2:] == [
        "float = 2",
        "activations = [4, 8]",
        "[cost.weights]",
        "2 = [0.5, 0.5]",
        "4 = [0.5, 2]",
    ]
