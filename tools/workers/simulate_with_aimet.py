"""Simulates encodings with AIMET; for an interpreter that has ``aimet-onnx``.

Started by ``tools/compare/encodings.py`` with a folder that holds ``jobs.json``: a list of
``{"model", "encodings"}`` (paths), and ``samples.npz`` (arrays by input name). For job ``i`` it
leaves ``i.npz`` with the first output; ``done.json`` has the version, and for each job the number
of quantizers that are on, or an error.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from aimet_onnx import QuantizationSimModel, quantsim


def simulate(model: str, encodings: str, samples: dict[str, np.ndarray]) -> tuple[Any, int]:
    """The first output, and how many quantizers are on."""
    # AIMET would give the input and the output of pooling one quantizer, and so one range.
    with quantsim._apply_constraints(False):
        sim = QuantizationSimModel(onnx.load(model))
    quantsim.load_encodings_to_sim(sim, encodings, strict=False)
    on = sum(quantizer.enabled for quantizer in sim.qc_quantize_op_dict.values())
    return sim.session.run(None, samples)[0], on


def main() -> None:
    folder = Path(sys.argv[1])
    samples = dict(np.load(folder / "samples.npz"))
    results: list[dict[str, Any]] = []
    for index, job in enumerate(json.loads((folder / "jobs.json").read_text())):
        try:
            output, on = simulate(job["model"], job["encodings"], samples)
            np.savez(folder / f"{index}.npz", output=output)
            results.append({"quantizers": on})
        except Exception as error:  # whatever AIMET raises is the result
            results.append({"error": " ".join(str(error).split())[-200:]})
    done = {"version": version("aimet-onnx"), "results": results}
    (folder / "done.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main()
