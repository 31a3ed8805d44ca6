r"""Runs files in OpenVINO, and compares their outputs with onnxruntime's.

    onnx-cgmq quantize resnet20.onnx --data train.npz --bound 6.25% --effort fast -o default.onnx
    onnx-cgmq quantize resnet20.onnx ... --target tensorrt -o tensorrt.onnx
    VENV/bin/pip install openvino numpy
    python -m tools.compare.openvino --python VENV/bin/python --model resnet20.onnx \
        --test test.npz default.onnx tensorrt.onnx ...

VENV is a virtual environment of its own. The model has one output of class scores; the samples of
``--test`` have labels. OpenVINO's own runtime model says in which precision each layer runs.
Writes docs/benchmarks/openvino.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data.source import open_data
from onnx_cgmq.ort.session import Runnable, run_onnxruntime
from onnx_cgmq.preparation.prepare import prepare
from tools import ROOT

TABLE: Final = Path("docs/benchmarks/openvino.md")
WORKER: Final = ROOT / "tools" / "workers" / "run_in_openvino.py"
MULTIPLY: Final = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq")
INTEGERS: Final = ("u8", "i8")

_Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """What OpenVINO made of a file.

    Attributes:
        layers: Types, precisions and numbers of its layers.
        milliseconds: The time of one sample.
        scores: The outputs.
        error: Why there are none of these, or empty.
    """

    layers: tuple[tuple[str, str, int], ...] = ()
    milliseconds: float = 0.0
    scores: _Scores | None = None
    error: str = ""

    def integers(self) -> tuple[int, int]:
        """How many layers that multiply run in integers, and how many there are."""
        multiply = [(p, count) for kind, p, count in self.layers if kind in MULTIPLY]
        integer = sum(count for precision, count in multiply if precision in INTEGERS)
        return integer, sum(count for _, count in multiply)


def run_in_openvino(
    python: str, models: Sequence[Path], samples: Mapping[str, npt.NDArray[Any]]
) -> tuple[str, list[Run]]:
    """Runs files in the OpenVINO of an interpreter; returns its version too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given: dict[str, Any] = dict(samples)
        np.savez(folder / "samples.npz", **given)
        (folder / "jobs.json").write_text(json.dumps([str(path.resolve()) for path in models]))
        subprocess.run([python, str(WORKER), name], check=True)
        done = json.loads((folder / "done.json").read_text())
        runs = []
        for index, result in enumerate(done["results"]):
            if "error" in result:
                runs.append(Run(error=result["error"]))
                continue
            scores = np.load(folder / f"{index}.npz")["output"]
            found = tuple((kind, precision, count) for kind, precision, count in result["layers"])
            runs.append(Run(found, result["milliseconds"], scores))
        return done["version"], runs


def decibels(found: _Scores, wanted: _Scores) -> str:
    """The signal-to-noise ratio of outputs."""
    noise = float(np.mean((found - wanted) ** 2))
    return "equal" if noise == 0 else f"{10 * np.log10(float(wanted.var()) / noise):.1f} dB"


def row(
    name: str, run: Run, scores: _Scores, floats: _Scores, labels: npt.NDArray[Any]
) -> list[str]:
    """Cells of the table.

    Args:
        name: The file.
        run: What OpenVINO made of it.
        scores: Its outputs in onnxruntime.
        floats: The float model's outputs in onnxruntime.
        labels: The classes.
    """
    if run.scores is None:
        return [name, f"does not load: {run.error}", "", "", "", "", ""]
    classes = [np.argmax(found, axis=1) for found in (run.scores, scores)]
    integer, count = run.integers()
    return [
        name,
        f"{integer} of {count}",
        f"{run.milliseconds:.2f} ms",
        decibels(run.scores, scores),
        f"{np.mean(classes[0] == classes[1]):.1%}",
        " / ".join(f"{np.mean(found == labels):.1%}" for found in classes),
        " / ".join(decibels(found, floats) for found in (run.scores, scores)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.onnx")
    parser.add_argument("--python", required=True, help="An interpreter that has openvino.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=TABLE)
    arguments = parser.parse_args()
    arrays = {name: array[: arguments.samples] for name, array in np.load(arguments.test).items()}
    labels = arrays.pop("label")
    paths = [arguments.model, *arguments.files]
    version, runs = run_in_openvino(arguments.python, paths, arrays)
    samples = open_data(arrays, prepare(arguments.model))
    scores = [
        next(iter(run_onnxruntime(path, samples, optimize=Runnable.of(path).optimize).values()))
        for path in paths
    ]
    names = ["float", *(path.stem for path in arguments.files)]
    rows = [
        row(name, run, found, scores[0], labels)
        for name, run, found in zip(names, runs, scores, strict=True)
    ]
    write(arguments, version, rows, runs[1])


def write(arguments: argparse.Namespace, version: str, rows: list[list[str]], first: Run) -> None:
    """Writes the table, and the layers of the first file."""
    head = (
        *("file", "layers that multiply in integers", "one sample", "agrees with onnxruntime"),
        *("same class", "accuracy: OpenVINO / onnxruntime", "agrees with float, likewise"),
    )
    text = [
        "# OpenVINO",
        "",
        "Made by `python -m tools.compare.openvino`; do not edit.",
        "",
        f"`{arguments.model.name}` in OpenVINO {version.split('-')[0]}, CPU plugin, one thread, "
        f"floats in float32, and in onnxruntime; {arguments.samples:,} samples that no run has "
        "seen. The names of the files say bound and settings. OpenVINO's runtime model says which "
        "layers run in u8 or i8.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
        "",
        f"## Layers of `{arguments.files[0].name}`",
        "",
        "| layer | precision | number |",
        "|---|---|---|",
        *(
            f"| {kind} | {precision} | {count} |"
            for kind, precision, count in first.layers
            if kind not in ("Const", "Input", "Output")
        ),
        "",
    ]
    arguments.output.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
