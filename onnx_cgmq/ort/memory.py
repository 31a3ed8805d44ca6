"""Measures how much memory a model takes in onnxruntime, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.ort.session import Runnable

# Linux reports the peak memory of a process since it began. getrusage exists elsewhere too, but its
# figure includes the process that started this one.
_CHILD = """
import sys
import numpy as np
import onnxruntime as ort

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

model, inputs, threads, optimize = sys.argv[1:]
feed = dict(np.load(inputs))
before = peak()
options = ort.SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = int(threads)
if optimize == "False":
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
session.run(None, feed)
print(peak() - before)
"""


def peak_bytes(model: Path, inputs: Mapping[str, npt.NDArray[Any]], threads: int = 1) -> int | None:
    """Returns the most memory that loading a model and running it once takes.

    Args:
        model: The ONNX file, of any form (:func:`~onnx_cgmq.ort.session.open_written`).
        inputs: Arrays by input name.
        threads: Number of threads within an operator.

    Returns:
        Bytes beyond those that Python with onnxruntime takes; ``None`` on systems other than Linux.

    Raises:
        ModelError: The model can't be read, or the process failed.
    """
    if not sys.platform.startswith("linux"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inputs.npz"
        np.savez(file, **inputs)  # type: ignore[arg-type]
        runnable, path = Runnable.of(model), model
        if isinstance(runnable.model, ir.Model):
            path = Path(folder) / "model.onnx"
            save_model(runnable.model, path)
        arguments = [str(path), str(file), str(threads), str(runnable.optimize)]
        command = [sys.executable, "-c", _CHILD, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"{model} can't be run in a process of its own: {lines[-1][:500]}")
    return int(done.stdout)
