"""Runs ONNX files in OpenVINO's CPU plugin; for an interpreter that has ``openvino`` and numpy.

Started by ``tools/compare/openvino.py`` with a folder that holds ``jobs.json`` (a list of paths of
models) and ``samples.npz`` (arrays by input name). For job ``i`` it leaves ``i.npz`` with the first
output of all samples; ``done.json`` has the version, and for each job the layers of OpenVINO's own
runtime model as ``[type, precision, count]`` and the milliseconds that one sample takes, or an
error.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino

_BATCH = 100
_ROUNDS, _RUNS = 9, 60
# One thread, as in the other benchmarks; floats stay floats, where AMX would take bfloat16.
_SETTINGS = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}


def layers(compiled: Any) -> list[tuple[str, str, int]]:
    """Types and precisions of the layers that OpenVINO runs."""
    found: Counter[tuple[str, str]] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind, precision = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
        found[kind, precision] += 1
    return [(*key, count) for key, count in sorted(found.items())]


def outputs(compiled: Any, samples: dict[str, np.ndarray]) -> np.ndarray:
    """The first output of all samples."""
    count = len(next(iter(samples.values())))
    parts = [
        compiled({name: array[start : start + _BATCH] for name, array in samples.items()})[0]
        for start in range(0, count, _BATCH)
    ]
    return np.concatenate(parts)


def times(compiled: dict[int, Any], samples: dict[str, np.ndarray]) -> dict[int, float]:
    """Median milliseconds of one sample, in interleaved rounds."""
    first = {name: array[:1] for name, array in samples.items()}
    rounds: dict[int, list[float]] = {index: [] for index in compiled}
    for _ in range(_ROUNDS):
        for index, model in compiled.items():
            model(first)
            began = time.perf_counter()
            for _ in range(_RUNS):
                model(first)
            rounds[index].append((time.perf_counter() - began) / _RUNS * 1e3)
    return {index: statistics.median(found) for index, found in rounds.items()}


def main() -> None:
    folder = Path(sys.argv[1])
    samples = dict(np.load(folder / "samples.npz"))
    core = openvino.Core()
    compiled: dict[int, Any] = {}
    results: list[dict[str, Any]] = []
    for index, model in enumerate(json.loads((folder / "jobs.json").read_text())):
        try:
            compiled[index] = core.compile_model(core.read_model(model), "CPU", _SETTINGS)
            np.savez(folder / f"{index}.npz", output=outputs(compiled[index], samples))
            results.append({"layers": layers(compiled[index])})
        except Exception as error:  # whatever OpenVINO raises is the result
            compiled.pop(index, None)
            results.append({"error": " ".join(str(error).split())[-200:]})
    for index, milliseconds in times(compiled, samples).items():
        results[index]["milliseconds"] = milliseconds
    done = {"version": openvino.__version__, "results": results}
    (folder / "done.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main()
