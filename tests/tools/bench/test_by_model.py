"""Models are measured once, in the order of the cases, and only those that were asked for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

import onnx_cgmq as cgmq
from tools.bench.accuracy import CASES
from tools.bench.by_model import measure_missing, parser_of


def test_what_has_a_result_is_not_measured_again(tmp_path: Path) -> None:
    results, files, measured = tmp_path / "results", tmp_path / "files", []
    results.mkdir()
    (results / "ocr-detection-fast.json").write_text("{}")

    def measure(case, arguments):
        measured.append(case.name)
        return {"threads": arguments.threads}

    arguments = argparse.Namespace(only="ocr", files=files, threads=1)
    for _ in range(2):
        measure_missing(CASES, results, measure, arguments, suffix="-fast")
    wanted = [c.name for c in CASES if c.name.startswith("ocr") and c.name != "ocr-detection"]
    assert measured == wanted
    assert json.loads((results / f"{wanted[0]}-fast.json").read_text()) == {"threads": 1}
    assert files.is_dir()


def test_a_benchmark_may_have_options_of_its_own() -> None:
    def nothing(_: argparse.Namespace) -> None:
        pass

    parser, command = parser_of("One line.\n\nMore.", nothing, nothing, Path("runs"))
    command.add_argument("--judged", type=int, default=7)
    given = parser.parse_args(["run", "--shared", "data"])
    assert (given.judged, given.files, given.action) == (7, Path("runs"), nothing)
    with pytest.raises(SystemExit):
        parser.parse_args(["run", "--shared", "data", "--effort", "fast"])
    parser, _ = parser_of("One.", nothing, nothing, Path("runs"), effort=cgmq.Effort.FAST)
    assert parser.parse_args(["run", "--shared", "data"]).effort == "fast"
