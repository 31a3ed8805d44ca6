"""A short run of the fuzzer: no broken file may end in anything but an error or a right result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tools import ROOT


def test_broken_files_end_in_an_error_or_a_right_result(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "tools.fuzz.models", "--networks", "--cases", "100"]
    command += ["--results", str(results)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = [json.loads(line)["result"] for line in results.read_text().splitlines()]
    assert len(found) == 100
    assert set(found) == {"refused", "right", "unchecked"}
