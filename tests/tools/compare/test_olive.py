"""An interpreter made here stands for that of an environment with Olive."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest

from onnx_cgmq import examples
from onnx_cgmq.learn import schedule
from tools.compare import olive as tool

INTERPRETER = """#!{python}
import json, sys
from pathlib import Path
with open("calls.txt", "a") as file:
    print(*sys.argv[1:], file=file)
if sys.argv[1] == "-c":
    print("1 2 3 4")
elif sys.argv[2] == "olive":
    import onnx_cgmq as cgmq, numpy as np
    settings = json.loads(Path("workflow.json").read_text())["passes"]["quantize"]
    Path("quantized").mkdir()
    images = np.load("digits-train.npz")["image"]
    cgmq.quantize(
        "digits.onnx", {{"image": images}}, settings["bound"], effort="fast"
    ).save("quantized/model.onnx")
"""


@pytest.mark.slow
def test_the_file_of_the_workflow_is_beside_that_of_quantize(
    tmp_path, monkeypatch, usual_steps
) -> None:
    monkeypatch.setattr(schedule, "STEPS", usual_steps)  # as in the other process
    python = tmp_path / "python"
    python.write_text(INTERPRETER.format(python=sys.executable))
    python.chmod(0o755)
    folder = tmp_path / "run"
    folder.mkdir()
    digits = examples.digits(folder)
    with np.load(digits.train) as arrays:
        np.savez(digits.train, image=arrays["image"][:64], label=arrays["label"][:64])
    written = tool.run_workflow(python, folder)
    onnx.checker.check_model(onnx.load(written))
    rows = tool.compare(folder, written)
    calls = (folder / "calls.txt").read_text().splitlines()
    assert calls == [
        "-m onnx_cgmq.integrations.olive olive.json",
        "-m olive run --config workflow.json --package-config olive.json",
    ]
    first, second = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)
    assert (first[0], second[0]) == ("the workflow", "`quantize`")
    assert first[1:] == second[1:]
    assert (
        first[2]
        == json.loads((folder / "workflow.json").read_text())["passes"]["quantize"]["bound"]
    )
    assert "olive-ai 1, onnx 2" in tool.report(rows, tool._versions(python, folder))
