"""Gives exported encodings to AIMET and onnxruntime, and compares what they make of them.

    VENV/bin/pip install aimet-onnx==2.42.0
    python -m tools.compare.encodings --python VENV/bin/python FILE.onnx:DATA.npz ...

VENV is a virtual environment of its own, FILE a quantized file, DATA samples by input name. AIMET
simulates the float model of the export with its encodings; the outputs are compared with those of
the file in onnxruntime without optimizations. ``quantize_static`` gets the overrides; scales and
types of what it writes are compared with them. Writes docs/benchmarks/encodings.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

import onnx_cgmq as cgmq
from onnx_cgmq.data.source import open_data
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.ort.session import run_onnxruntime
from tools import ROOT

TABLE: Final = Path("docs/benchmarks/encodings.md")
WORKER: Final = ROOT / "tools" / "workers" / "simulate_with_aimet.py"

Arrays = dict[str, npt.NDArray[Any]]


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives samples to ``quantize_static``."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._batches: Iterator[Mapping[str, npt.NDArray[Any]]] = iter([arrays])

    def get_next(self) -> Mapping[str, npt.NDArray[Any]] | None:
        return next(self._batches, None)


def for_quantize_static(text: str) -> dict[str, list[dict[str, Any]]]:
    """Overrides as ``quantize_static`` takes them, of their JSON text."""
    overrides: dict[str, list[dict[str, Any]]] = json.loads(text)
    for entry in (entry for entries in overrides.values() for entry in entries):
        signed = entry["quant_type"].startswith("QI")
        entry["quant_type"] = QuantType[entry["quant_type"]]
        entry["scale"] = np.array(entry["scale"], np.float32)
        entry["zero_point"] = np.array(entry["zero_point"], np.int8 if signed else np.uint8)
    return overrides


def static_agreement(exported: cgmq.Exported, model: Path, arrays: Arrays, folder: Path) -> str:
    """How many of the tensors that ``quantize_static`` quantizes have the overrides' grid."""
    overrides = for_quantize_static(exported.text)
    output = folder / "static.onnx"
    few = {name: array[:8] for name, array in arrays.items()}
    extra = {"TensorQuantOverrides": overrides}
    quantize_static(model, output, Reader(few), per_channel=True, extra_options=extra)
    stored = {tensor.name: tensor for tensor in onnx.load(output).graph.initializer}
    same = seen = 0
    for name, entries in overrides.items():
        if f"{name}_scale" not in stored:
            continue
        seen += 1
        zero = stored[f"{name}_zero_point"]
        found = (stored[f"{name}_scale"], zero)
        scale, zeros = (onnx.numpy_helper.to_array(tensor).reshape(-1) for tensor in found)
        same += (
            zero.data_type == entries[0]["quant_type"].tensor_type
            and np.array_equal(scale, [entry["scale"] for entry in entries])
            and np.array_equal(zeros, [entry["zero_point"] for entry in entries])
        )
    return f"{same} of {seen}"


def aimet(python: str, model: Path, encodings: Path, arrays: Arrays) -> tuple[str, Any, Any]:
    """Version of AIMET, its output, and the number of its quantizers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given: dict[str, Any] = dict(arrays)
        np.savez(folder / "samples.npz", **given)
        job = {"model": str(model), "encodings": str(encodings)}
        (folder / "jobs.json").write_text(json.dumps([job]))
        subprocess.run([python, str(WORKER), name], check=True, capture_output=True)
        done = json.loads((folder / "done.json").read_text())
        (result,) = done["results"]
        if "error" in result:
            raise SystemExit(f"AIMET fails on {model}: {result['error']}")
        return done["version"], np.load(folder / "0.npz")["output"], result["quantizers"]


def row(python: str, path: Path, arrays: Arrays, folder: Path) -> tuple[str, list[str]]:
    """Version of AIMET, and the cells of the table."""
    exported = cgmq.export_encodings(path, "aimet")
    encodings, model = exported.save(folder / f"{path.stem}.encodings")
    fields = json.loads(exported.text)
    count = len(fields["activation_encodings"]) + len(fields["param_encodings"])
    version, found, on = aimet(python, model, encodings, arrays)
    samples = open_data(arrays, load_model(path))
    wanted = next(iter(run_onnxruntime(path, samples, optimize=False).values()))
    noise = float(np.mean((found - wanted) ** 2))
    decibels = 10 * np.log10(float(wanted.var()) / noise) if noise else np.inf
    try:
        overrides = cgmq.export_encodings(path, "ort-overrides")
        static = static_agreement(overrides, model, arrays, folder)
    except cgmq.ConfigError as error:
        static = str(error).split(":", maxsplit=1)[0]
    equal = float(np.mean(found == wanted))
    cells = [path.name, f"{on} of {count}", f"{equal:.1%}", f"{decibels:.1f} dB", static]
    return version, cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE.onnx:DATA.npz")
    parser.add_argument("--python", required=True, help="An interpreter that has aimet-onnx.")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--output", type=Path, default=TABLE)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for text in arguments.files:
            path, _, data = text.partition(":")
            arrays = {
                key: array[: arguments.samples]
                for key, array in np.load(data).items()
                if key != "label"
            }
            version, cells = row(arguments.python, Path(path), arrays, Path(name))
            rows.append(cells)
    head = (
        *("file", "quantizers that AIMET loads", "outputs equal to the file's", "agreement"),
        "`quantize_static`: tensors with the overrides' scale, zero point and type",
    )
    lines = [
        "# Encodings in AIMET and onnxruntime",
        "",
        "Made by `python -m tools.compare.encodings`; do not edit.",
        "",
        f"`load_encodings_to_sim` of aimet-onnx {version} on {arguments.samples} samples, beside "
        "the file in onnxruntime without optimizations. AIMET rounds a value halfway between two "
        "codes away from zero, ONNX to the even code; with the exact steps of `ort-cpu` such "
        "values are frequent. AIMET also runs its graph with optimizations, so that sums round "
        "otherwise.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
        "",
    ]
    arguments.output.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
