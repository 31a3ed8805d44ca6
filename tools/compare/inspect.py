r"""Checks ``inspect`` on files of other tools against how these were made.

Files of onnxruntime's ``quantize_static`` (QDQ and QOperator) and ``quantize_dynamic`` are made
from real float models, and QONNX and QCDQ exports from networks of Brevitas with mixed widths, with
the interpreter that ``--brevitas-python`` names (``tools/workers/brevitas_models.py`` says what it
must have). Compared are the bits of both operands and the multiply-accumulates of every node, and
of QONNX files the bit operations that QONNX's own ``inference_cost`` finds. Any difference is an
error.

    python -m tools.compare.inspect --model resnet20_cifar10.onnx \
        --brevitas-python ENV/bin/python --out docs/benchmarks/inspect.md
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnx_cgmq import inspect, prepare
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.inspection import Report
from tools import ROOT

LENET5 = ROOT / "examples" / "mnist" / "lenet5.onnx"

TYPES = (
    (QuantType.QUInt8, QuantType.QInt8),
    (QuantType.QInt8, QuantType.QInt8),
    (QuantType.QUInt8, QuantType.QUInt8),
    (QuantType.QUInt16, QuantType.QInt8),
    (QuantType.QInt16, QuantType.QInt16),
    (QuantType.QUInt8, QuantType.QInt4),
    (QuantType.QUInt16, QuantType.QUInt4),
)
"""Types of activations and weights."""

_BITS = {
    member: int("".join(filter(str.isdigit, member.name)))
    for member in QuantType
    if "Int" in member.name
}


@dataclass(frozen=True)
class Product:
    """What one node multiplies.

    Attributes:
        macs: Multiply-accumulates for one sample.
        activation: Bits of its first operand.
        weight: Bits of its second operand.
    """

    macs: int
    activation: int
    weight: int

    @property
    def bops(self) -> int:
        return self.macs * self.activation * self.weight


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        model: What was quantized.
        made: How.
        expected: Its products, as it was made.
        found: Its products, as ``inspect`` reads them.
        notes: What ``inspect`` could not tell.
        qonnx: QONNX's count, or what stands in its place.
        qonnx_differs: Whether QONNX counts something else.
    """

    model: str
    made: str
    expected: tuple[Product, ...]
    found: tuple[Product, ...]
    notes: tuple[str, ...] = ()
    qonnx: str = ""
    qonnx_differs: bool = False

    @property
    def agrees(self) -> bool:
        same = Counter(self.expected) == Counter(self.found)
        return same and not self.notes and not self.qonnx_differs

    def to_markdown(self) -> str:
        expected, found = (sum(p.bops for p in side) for side in (self.expected, self.found))
        right = (Counter(self.expected) & Counter(self.found)).total()
        cells = [self.model, self.made, f"{right} of {len(self.expected)}"]
        cells += [f"{expected:,}", f"{found:,}", self.qonnx]
        return f"| {' | '.join(cells)} |"


_PAGE = """# `inspect` on files of other tools

Made by `python -m tools.compare.inspect` with onnxruntime {onnxruntime}{brevitas}. A node is right
if the bits of both its operands and its multiply-accumulates are those that the file was made with.

| model | made by | nodes right | BOPs as made | BOPs by `inspect` | BOPs by QONNX |
|---|---|---|---|---|---|"""

_NOTES = """
* In "UInt16/Int8" activations go first, then weights. QOperator has 8 bits only.
* Networks of Brevitas: two convolutions and two linear layers with 8/8, 4/3, 3/2 and 2/4 bits
  (input/weight); the same with signs as weights; a residual block with a depthwise convolution at
  8/8, 6/5, 7/3 and 4/6 bits. Brevitas has no QCDQ for signs.
* If QONNX does not know an operator (in brackets), it takes the operator's result for float and
  counts 32 bits.
"""


def write_table(rows: Sequence[Row], versions: dict[str, str]) -> str:
    """The page."""
    peers = "".join(f", {name} {number}" for name, number in versions.items())
    page = _PAGE.format(onnxruntime=version("onnxruntime"), brevitas=peers)
    return "\n".join([page, *(row.to_markdown() for row in rows), _NOTES])


def products(report: Report) -> tuple[Product, ...]:
    """What a report says of every node; mixed widths in one tensor are none of these."""
    found = []
    for node in report.nodes:
        bits = []
        for name in node.operands:
            (width,) = report.tensors[name].counts
            bits.append(width)
        if node.bops != node.macs * bits[0] * bits[1]:
            raise ValueError(
                f"{node.name}: {node.bops} bit operations are not {bits} x {node.macs}"
            )
        found.append(Product(node.macs, *bits))
    return tuple(found)


class _Random(CalibrationDataReader):  # type: ignore[misc]
    """Widths do not depend on what is calibrated with."""

    def __init__(self, model: onnx.ModelProto) -> None:
        (value,) = model.graph.input
        shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        rng = np.random.default_rng(0)
        self._samples = [{value.name: rng.random(shape, np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._samples.pop() if self._samples else None


def onnxruntime_files(path: Path, folder: Path) -> Iterator[Row]:
    """Quantizes a float model in every way that onnxruntime has."""
    source, ready, quantized = (folder / f"{name}.onnx" for name in ("float", "ready", "quantized"))
    save_model(prepare(path), source)
    quant_pre_process(source, ready, skip_symbolic_shape=True)
    macs = [node.macs for node in inspect(ready).nodes]
    for form, (activation, weight), per_channel in itertools.product(
        QuantFormat, TYPES, (False, True)
    ):
        bits = _BITS[activation], _BITS[weight]
        if form is QuantFormat.QOperator and bits != (8, 8):
            continue
        quantize_static(
            ready,
            quantized,
            _Random(onnx.load(ready)),
            quant_format=form,
            per_channel=per_channel,
            activation_type=activation,
            weight_type=weight,
        )
        made = [f"quantize_static, {form.name}, {activation.name[1:]}/{weight.name[1:]}"]
        made += ["by channel"] if per_channel else []
        yield _row(path.stem, ", ".join(made), [Product(n, *bits) for n in macs], quantized)
    quantize_dynamic(ready, quantized, weight_type=QuantType.QUInt8)
    yield _row(path.stem, "quantize_dynamic", [Product(n, 8, 8) for n in macs], quantized)


def brevitas_files(python: Path, folder: Path) -> tuple[list[Row], dict[str, str]]:
    """Networks of Brevitas, and the versions of what made them."""
    script = ROOT / "tools" / "workers" / "brevitas_models.py"
    subprocess.run([python, script, folder], check=True, stderr=subprocess.DEVNULL)
    content = json.loads((folder / "brevitas.json").read_text(encoding="utf-8"))
    rows = []
    for record in content["files"]:
        if "file" not in record:
            print(f"{record['network']}, {record['form']}: {record['error']}", file=sys.stderr)
            continue
        built = [Product(x["macs"], x["activation"], x["weight"]) for x in record["layers"]]
        made = f"Brevitas, {record['form']}, {record['exporter']}"
        rows.append(_row(record["network"], made, built, folder / record["file"], record))
    return rows, content["versions"]


def _row(
    model: str,
    made: str,
    expected: Sequence[Product],
    path: Path,
    record: dict[str, Any] | None = None,
) -> Row:
    report = inspect(path)
    text, differs = "", False
    if record is not None and "qonnx_bops" in record:
        text = f"{record['qonnx_bops']:,}"
        differs = record["qonnx_bops"] != report.bops
        if record["qonnx_unknown"]:
            text += f" ({', '.join(record['qonnx_unknown'])} unknown)"
            differs = False
    return Row(model, made, tuple(expected), products(report), report.notes, text, differs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, action="append", default=[], help="one more model")
    parser.add_argument("--brevitas-python", type=Path, help="interpreter that has Brevitas")
    parser.add_argument("--out", type=Path, help="the table, as Markdown")
    options = parser.parse_args()

    logging.disable(logging.WARNING)  # onnxruntime's advice on pre-processing, for every file
    rows: list[Row] = []
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in (LENET5, *options.model):
            rows += onnxruntime_files(path, Path(folder))
        if options.brevitas_python is not None:
            peers, versions = brevitas_files(options.brevitas_python, Path(folder))
            rows += peers
    page = write_table(rows, versions)
    print(page)
    if options.out is not None:
        options.out.write_text(page, encoding="utf-8")
    wrong = [row for row in rows if not row.agrees]
    for row in wrong:
        print(f"differs: {row.model}, {row.made} {' '.join(row.notes)}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
