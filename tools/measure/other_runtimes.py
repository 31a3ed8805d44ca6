"""Other versions of onnxruntime beside the installed one, and what they make of ONNX files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tools import ROOT

_WORKER = ROOT / "tools" / "workers" / "run_in_onnxruntime.py"


@dataclass(frozen=True)
class Job:
    """One file to run.

    Attributes:
        model: The ONNX file.
        data: An ``.npz`` file with arrays by input name.
    """

    model: Path
    data: Path


@dataclass(frozen=True)
class Run:
    """What a version made of a file.

    Attributes:
        error: Why it did not load or run, or empty.
        kernels: Operators of the graph that it runs.
        optimized: The first output with all optimizations.
        plain: The first output without any.
    """

    error: str = ""
    kernels: Counter[str] | None = None
    optimized: npt.NDArray[Any] | None = None
    plain: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Interpreter:
    """A Python with an onnxruntime.

    Attributes:
        executable: Its program.
        path: Folder with packages that go before its own, or ``None``.
    """

    executable: str = sys.executable
    path: Path | None = None

    def run(self, jobs: Sequence[Job]) -> tuple[str, list[Run]]:
        """Runs files; the version of onnxruntime, and one result for each."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            asked = [
                {"model": str(job.model.resolve()), "data": str(job.data.resolve())} for job in jobs
            ]
            (folder / "jobs.json").write_text(json.dumps(asked))
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            if self.path is not None:
                environment["PYTHONPATH"] = str(self.path)
            command = [self.executable, str(_WORKER), str(folder)]
            subprocess.run(command, check=True, env=environment)
            done = json.loads((folder / "done.json").read_text())
            runs = [_read(folder / str(i), done["errors"].get(str(i))) for i in range(len(jobs))]
            return str(done["version"]), runs


def _read(stem: Path, error: str | None) -> Run:
    if error is not None:
        return Run(error)
    optimized = onnx.load(stem.with_suffix(".onnx"))
    outputs = np.load(stem.with_suffix(".npz"))
    kernels = Counter(node.op_type for node in optimized.graph.node)
    return Run("", kernels, outputs["on"], outputs["off"])


def with_version(version: str, cache: Path) -> Interpreter:
    """This interpreter with another onnxruntime, installed into a folder of its own, once.

    Raises:
        RuntimeError: pip can't install it.
    """
    folder = cache / version
    if not folder.exists():
        partial = cache / f"{version}.partial"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        # What it needs besides is there; coloredlogs is what versions before 1.23 import.
        command += ["--no-deps", "--target", str(partial), f"onnxruntime=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        partial.rename(folder)
    return Interpreter(path=folder)
