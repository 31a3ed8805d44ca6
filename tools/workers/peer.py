"""What the workers that quantize with other tools have in common; needs only numpy.

Such a worker runs as a module in the environment of its tool, with a JSON file:
``{"model", "data", "output", "settings", "threads"}``. ``data`` is an ``.npz`` with samples by
input name. It prints the seconds and the peak memory that the tool took, as JSON, on the last line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.measure.process import measured

Arrays = dict[str, npt.NDArray[Any]]


def batches(arrays: Arrays, size: int) -> list[Arrays]:
    """Samples in batches of one size; those that fill no batch are left out."""
    count = min(len(array) for array in arrays.values())
    return [
        {name: array[start : start + size] for name, array in arrays.items()}
        for start in range(0, count - size + 1, size)
    ]


def main(quantize: Callable[..., None]) -> None:
    """Quantizes what the command line names.

    Args:
        quantize: Takes the model, the samples, the file to write, and the settings by keyword.
    """
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # onnxruntime heeds no other limit that its caller sets for all tools alike.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    model, output = Path(job["model"]), Path(job["output"])
    arrays = dict(np.load(job["data"]))
    seconds, peak = measured(lambda: quantize(model, arrays, output, **job["settings"]))
    print(json.dumps({"processor_seconds": round(seconds, 1), "peak_bytes": peak}))
