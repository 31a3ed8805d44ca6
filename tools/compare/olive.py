"""Runs the example workflow of Olive, and compares its file with that of ``quantize``.

Olive lives in an environment of its own, which needs the packages of onnx-cgmq too:

    python -m venv ../olive && ../olive/bin/pip install . 'olive-ai==0.13.0'
    python -m tools.compare.olive --python ../olive/bin/python --output docs/benchmarks/olive.md
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

import onnx_cgmq as cgmq
from onnx_cgmq import examples
from tools import ROOT

_EXAMPLE: Final = ROOT / "examples" / "olive"
_WRITTEN: Final = Path("quantized", "model.onnx")
_PACKAGES: Final = ("olive-ai", "onnx", "onnxruntime", "torch")


def run_workflow(python: Path, folder: Path) -> Path:
    """Runs the workflow in a folder with the example's files.

    Args:
        python: The interpreter of an environment with Olive.
        folder: The folder.

    Returns:
        The written file.
    """
    for file in _EXAMPLE.iterdir():
        shutil.copy(file, folder)
    arguments = ("run", "--config", "workflow.json", "--package-config", "olive.json")
    _run(python, folder, "-m", "onnx_cgmq.integrations.olive", "olive.json")
    _run(python, folder, "-m", "olive", *arguments)
    return folder / _WRITTEN


def _run(python: Path, folder: Path, *arguments: str) -> str:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OLIVE_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [str(python), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return done.stdout


def _versions(python: Path, folder: Path) -> str:
    code = f"from importlib.metadata import version as v\nprint(*map(v, {_PACKAGES!r}))"
    found = _run(python, folder, "-c", code).split()
    return ", ".join(f"{name} {version}" for name, version in zip(_PACKAGES, found, strict=True))


def compare(folder: Path, written: Path) -> list[str]:
    """Checks the file of the workflow, and makes one with the same settings by ``quantize``.

    Returns:
        Rows of the report.
    """
    workflow: dict[str, Any] = json.loads((folder / "workflow.json").read_text(encoding="utf-8"))
    settings = workflow["passes"]["quantize"]
    digits = {"image": np.load(folder / "digits-train.npz")["image"]}
    result = cgmq.quantize(
        folder / "digits.onnx",
        digits,
        settings["bound"],
        effort=settings["effort"],
        **settings["settings"],
    )
    own = folder / "own.onnx"
    result.save(own)
    rows = []
    for name, file in (("the workflow", written), ("`quantize`", own)):
        check = cgmq.verify(
            folder / "digits.onnx", file, folder / "digits-test.npz", bound=settings["bound"]
        )
        decibels = check.outputs["logits"].snr_db
        rows.append(
            f"| {name} | {check.rbop:.4%} | {settings['bound']} | {check.accuracy:.2%} "
            f"| {check.reference_accuracy:.2%} | {decibels:.1f} dB |"
        )
    return rows


def report(rows: list[str], versions: str) -> str:
    """The table, in Markdown."""
    lines = [
        "# The pass of Olive",
        "",
        "`examples/olive/workflow.json` as it is, and `quantize` with its settings: RBOP counted",
        "again from the file, accuracy on 1,000 digits that no run has seen, and the distance of",
        "the logits to the float model's.",
        "",
        "| file of | RBOP | bound | accuracy | float | logits |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"{versions}.",
        "",
        "Made by `python -m tools.compare.olive --python PYTHON --output FILE`.",
    ]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="of an environment with Olive")
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    options = parser.parse_args()
    python = options.python.absolute()  # not resolved: the link says which environment it is
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        examples.digits(folder)
        rows = compare(folder, run_workflow(python, folder))
        text = report(rows, _versions(python, folder))
    print(text, end="")
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
