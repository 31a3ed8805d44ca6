"""Runs ONNX files in whatever onnxruntime the interpreter has; needs nothing but it and numpy.

Started by ``tools/measure/other_runtimes.py`` with a folder that holds ``jobs.json``: a list of
``{"model", "data"}`` (paths; ``data`` is an ``.npz`` with arrays by input name). For job ``i`` it
leaves ``i.onnx``, the graph that onnxruntime runs, and ``i.npz`` with the first output, optimized
(``on``) and not (``off``); ``done.json`` has the version, and the error of every job that failed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


def run(model: str, data: str, target: Path) -> None:
    """Runs one file with all optimizations and with none."""
    arrays = dict(np.load(data))
    outputs = {}
    for name, level in (("on", "ORT_ENABLE_ALL"), ("off", "ORT_DISABLE_ALL")):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        if name == "on":
            options.optimized_model_filepath = str(target.with_suffix(".onnx"))
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        inputs = {value.name: arrays[value.name] for value in session.get_inputs()}
        outputs[name] = session.run(None, inputs)[0]
    np.savez(target.with_suffix(".npz"), **outputs)


def main() -> None:
    folder = Path(sys.argv[1])
    errors: dict[str, str] = {}
    for index, job in enumerate(json.loads((folder / "jobs.json").read_text())):
        try:
            run(job["model"], job["data"], folder / str(index))
        except Exception as error:  # whatever onnxruntime raises is the result
            errors[str(index)] = " ".join(str(error).split())[-200:]
    done = {"version": ort.__version__, "errors": errors}
    (folder / "done.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main()
