"""The same files in several versions of onnxruntime: do they load, fuse and agree?

LeNet-5 of ``examples/mnist`` is quantized for the oldest versions that can be served, for those
that take INT4, and for the newest; files of one's own come on top, with the version from which on
they are to load. Every file runs with and without optimizations, and is compared with the newest
version.

    python -m tools.compare.runtimes --output docs/benchmarks/runtimes.md
    python -m tools.compare.runtimes FILE.onnx[:DATA.npz] ... --since 1.24 --versions 1.24.1 1.32.0
    python -m tools.compare.runtimes FILE.onnx ... --python venv-a/bin/python --python ...

``DATA`` has arrays by input name; without it inputs are random, open sizes 1 and the batch 8.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from packaging.version import Version

import onnx_cgmq as cgmq
from tools.measure.other_runtimes import Interpreter, Job, Run, with_version

VERSIONS = ("1.20.0", "1.22.1", "1.23.2", "1.24.1", "1.28.0", "1.31.1", "1.32.0")
EXAMPLES = Path("examples/mnist")
MADE_FOR = {
    "1.20": ("onnxruntime>=1.20", "size:26%"),
    "1.23": ("onnxruntime>=1.23", "size:14%"),
    "1.24.1": (None, "size:9%"),
}
"""Oldest versions that LeNet-5 is written for, how to ask for that (``None``: not at all), and the
bound, which the types of that version can just keep."""

_FLOAT_MACS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_INTEGER_MACS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")


@dataclass(frozen=True)
class Subject:
    """A file, its data, and the version from which on it is to load."""

    name: str
    job: Job
    since: Version


def lenets(folder: Path) -> list[Subject]:
    """LeNet-5 at 2, 4 and 8 bits, learned for one epoch, for each of the oldest versions."""
    test = dict(np.load(EXAMPLES / "test.npz"))
    data = folder / "digits.npz"
    np.savez(data, image=test["image"][:1000])
    found = []
    for since, (runtime, bound) in MADE_FOR.items():
        path = folder / f"lenet5-{since}.onnx"
        cgmq.quantize(
            EXAMPLES / "lenet5.onnx",
            EXAMPLES / "train.npz",
            bound,
            output=path,
            target="generic",
            runtime=runtime,
            widths=(2, 4, 8),
            weight_ranges="channel",
            exact_steps=True,
            epochs=1,
        )
        found.append(Subject(f"LeNet-5, {runtime or 'default'}", Job(path, data), Version(since)))
    return found


def given(text: str, since: Version, folder: Path) -> Subject:
    """A file from the command line."""
    name, _, data = text.partition(":")
    path = Path(data) if data else random_data(Path(name), folder)
    return Subject(Path(name).stem, Job(Path(name), path), since)


def random_data(model: Path, folder: Path) -> Path:
    """Inputs of the shapes that a file has."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for value in onnx.load(model, load_external_data=False).graph.input:
        tensor = value.type.tensor_type
        sizes = [dim.dim_value or (1 if i else 8) for i, dim in enumerate(tensor.shape.dim)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        arrays[value.name] = rng.normal(0, 1, sizes).astype(dtype)
    path = folder / f"{model.stem}.npz"
    np.savez(path, **arrays)
    return path


def row(subject: Subject, version: str, run: Run, newest: Run) -> list[str]:
    """Cells of the table."""
    cells = [subject.name, f"{subject.job.model.stat().st_size:,}", version]
    if run.error or run.kernels is None or run.optimized is None or run.plain is None:
        expected = "" if Version(version) < subject.since else "**fails**: "
        return [*cells, f"{expected}does not load", "", "", ""]
    integer = sum(run.kernels[op] for op in _INTEGER_MACS)
    floats = sum(run.kernels[op] for op in _FLOAT_MACS)
    return [
        *cells,
        f"{integer} of {integer + floats}",
        agreement(run.optimized, newest.optimized),
        agreement(run.plain, newest.plain),
        agreement(run.optimized, run.plain),
    ]


def agreement(a: np.ndarray | None, b: np.ndarray | None) -> str:
    """Whether outputs are equal, or else the share of equal classes and the largest difference."""
    if a is None or b is None:
        return ""
    if np.array_equal(a, b):
        return "equal"
    same = (a.reshape(len(a), -1).argmax(-1) == b.reshape(len(b), -1).argmax(-1)).mean()
    return f"{same:.2%} same class, {np.abs(a - b).max() / np.abs(b).max():.0e}"


def compare(subjects: Sequence[Subject], interpreters: Sequence[Interpreter]) -> list[list[str]]:
    """Rows for every file and version, the oldest first."""
    jobs = [subject.job for subject in subjects]
    found = sorted(
        (interpreter.run(jobs) for interpreter in interpreters), key=lambda run: Version(run[0])
    )
    newest = found[-1][1]
    return [
        row(subject, version, runs[index], newest[index])
        for index, subject in enumerate(subjects)
        for version, runs in found
    ]


def features(path: Path) -> list[str]:
    """The table of ``tools/measure/runtime_features.py``, if it is there."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))
    ways = list(dict.fromkeys(way for row in rows for way in row["ways"]))
    lines = [f"| onnxruntime | newest opset that fuses | {' | '.join(ways)} |"]
    lines.append(f"|{'---|' * (2 + len(ways))}")
    for found in rows:
        marks = ["yes" if way in found["ways"] else "" for way in ways]
        lines.append(f"| {found['version']} | {found['opset']} | {' | '.join(marks)} |")
    return [
        "## What each version takes",
        "",
        "Made by `python -m tools.measure.runtime_features`. Yes: a convolution between quantizers "
        "loads, fuses to one integer kernel with nothing left over, and computes the same to the "
        "last bit. INT4 and INT2: weights with a `Cast`; BFLOAT16 and FLOAT8E5M2: scales with a "
        "`Cast`.",
        "",
        *lines,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE.onnx[:DATA.npz]")
    parser.add_argument("--since", type=Version, default=Version("1.24.1"))
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS))
    parser.add_argument("--python", action="append", default=[], help="Instead of --versions.")
    parser.add_argument("--cache", type=Path, default=Path(".cache/onnxruntime"))
    parser.add_argument(
        "--features", type=Path, default=Path("docs/benchmarks/runtimes/features.json")
    )
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    interpreters = [Interpreter(python) for python in arguments.python] or [
        with_version(version, arguments.cache) for version in arguments.versions
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subjects = lenets(folder)
        subjects += [given(text, arguments.since, folder) for text in arguments.files]
        rows = compare(subjects, interpreters)
    head = (
        *("file", "bytes", "onnxruntime", "MAC nodes in integers"),
        *("optimized as in the newest", "plain as in the newest", "optimized as plain"),
    )
    text = [
        "# Versions of onnxruntime",
        "",
        "Made by `python -m tools.compare.runtimes`; do not edit.",
        "",
        "## The same files in several versions",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
        "",
        *features(arguments.features),
    ]
    print("\n".join(text))
    if arguments.output is not None:
        arguments.output.write_text("\n".join(text), encoding="utf-8")
    raise SystemExit(any("**fails**" in cell for cells in rows for cell in cells))


if __name__ == "__main__":
    main()
