"""Runs a file in QONNX's own executor, and counts its cost with QONNX's own analysis.

For an interpreter that has QONNX; ``tools/compare/qonnx.py`` calls it.

    python tools/workers/run_in_qonnx.py model.onnx inputs.npz outputs.npz

The outputs are written as arrays by name; the cost is one JSON document on stdout.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from importlib.metadata import version

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model
from qonnx.util.inference_cost import inference_cost


def main() -> None:
    path, inputs_path, outputs_path = sys.argv[1:]
    inputs = dict(np.load(inputs_path))
    (name,) = inputs
    with contextlib.redirect_stdout(io.StringIO()):
        # QONNX renames tensors; it keeps the order of outputs.
        model = cleanup_model(ModelWrapper(path), override_inpsize=len(inputs[name]))
        (graph_input,) = (value.name for value in model.graph.input)
        outputs = execute_onnx(model, {graph_input: inputs[name]})
        single = cleanup_model(ModelWrapper(path), override_inpsize=1)
        # Multiplications by weights that are zero count too: a unit of hardware makes them.
        cost = inference_cost(single, discount_sparsity=False)["total_cost"]
    np.savez(outputs_path, *outputs.values())
    kept = {key: cost[key] for key in ("total_bops", "total_macs", "total_mem_w_bits")}
    versions = ", ".join(f"{name} {version(name)}" for name in ("qonnx", "onnx", "onnxruntime"))
    print(json.dumps({"versions": versions, **kept}))


if __name__ == "__main__":
    main()
