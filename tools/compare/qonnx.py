"""Compares files of the form ``qonnx`` with QONNX: outputs in its executor, and its cost.

LeNet-5 (``examples/mnist``) and ResNet-20, calibrated on real images, with widths drawn from a
seed: nothing is trained, so there are no accuracies here. For every plan the file runs in QONNX's
own executor, node by node, and the gated graph that it was written from in onnxruntime.

    NEW/bin/pip install qonnx==1.0.0
    OLD/bin/pip install qonnx==0.4.0 onnx==1.17.0 onnxruntime==1.18.1 'numpy<2' setuptools
    python -m tools.compare.qonnx --shared SHARED --python NEW/bin/python --python OLD/bin/python

NEW and OLD are virtual environments: FPGA flows often pin older versions. SHARED holds
``models/resnet20_cifar10.onnx`` and ``data/cifar10_jpeg.zip``. Writes docs/benchmarks/qonnx.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import onnx_cgmq as cgmq
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.data.source import open_data
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.ort.session import open_session
from tools import ROOT

TABLE = Path("docs/benchmarks/qonnx.md")
EXAMPLE = Path("examples/mnist")
WORKER = ROOT / "tools" / "workers" / "run_in_qonnx.py"
CALIBRATED = 512

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Variant:
    """One way to choose a plan.

    Attributes:
        name: Its name in the table.
        widths: Widths to draw from.
        settings: Of :class:`onnx_cgmq.Config`, beside the target.
    """

    name: str
    widths: tuple[int, ...] = (2, 4, 8)
    settings: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = (
    Variant("8 bits everywhere", (8,)),
    Variant("2, 4, 8 by tensor"),
    Variant("2, 4, 8 by tensor, ranges by channel", settings={"weight_ranges": "channel"}),
    Variant("2, 4, 8 by tensor, exact steps", settings={"exact_steps": True}),
    Variant("2, 4, 8 by tensor, with zero points", settings={"form": "ort"}),
    Variant("weights 2, 4, 8 by channel", settings={"granularity": "channel"}),
)


@dataclass(frozen=True)
class Row:
    """What one plan gave.

    Attributes:
        model: The model.
        variant: How its plan was chosen.
        images: Number of images.
        difference: Largest difference of any output.
        largest: Largest magnitude of an output.
        agreement: Share of images with the same class.
        macs: Multiply-accumulates: ours, QONNX's.
        bops: Bit operations: of the plan, read from the file, QONNX's.
        weight_bits: Bits of the weights of multiply-accumulates: ours, QONNX's.
    """

    model: str
    variant: str
    images: int
    difference: float
    largest: float
    agreement: float
    macs: tuple[int, int]
    bops: tuple[int, int, int]
    weight_bits: tuple[int, int]

    def to_markdown(self) -> str:
        planned, read, theirs = self.bops
        ours = f"{read:,}" if read == planned else f"{read:,} (plan: {planned:,})"
        cells = [
            self.model,
            self.variant,
            str(self.images),
            f"{self.difference:.1e}" if self.difference else "0",
            f"{self.largest:.1f}",
            f"{self.agreement:.1%}",
            ours,
            _against(theirs, read),
            _against(self.macs[1], self.macs[0]),
            _against(self.weight_bits[1], self.weight_bits[0]),
        ]
        return f"| {' | '.join(cells)} |"


def _against(theirs: int, ours: int) -> str:
    return f"{theirs:,} (equal)" if theirs == ours else f"{theirs:,} ({theirs - ours:+,})"


def write_page(rows: Mapping[str, list[Row]]) -> str:
    """The page: a table for the versions of each interpreter."""
    tables = [
        "\n".join([_TABLE.format(versions=versions), *(row.to_markdown() for row in part)])
        for versions, part in rows.items()
    ]
    return "\n\n".join([_HEAD, *tables, _NOTES])


_HEAD = """# The form `qonnx` in QONNX

Made by `python -m tools.compare.qonnx`. The models are calibrated on real images, with widths
drawn from a seed, and not trained. The outputs of the written file in QONNX's executor
(`execute_onnx`, after its `cleanup`) are compared with those of the gated graph in onnxruntime
without optimizations. Costs are as QONNX's `inference_cost` counts them; in brackets, by how much
they differ from what `inspect` reads from the same file."""

_TABLE = """## {versions}

| model | plan | images | difference | of | same class | BOPs | QONNX | MACs | weight bits |
|---|---|---|---|---|---|---|---|---|---|"""

_NOTES = """\
* Difference: the largest difference of any output value; the next column has the largest output.
  QONNX runs every node in an onnxruntime session of its own, with optimizations, so it may sum in
  another order. A value on the edge between two codes then gets the other code. With exact steps
  the order does not matter.
* QONNX is asked not to leave out multiplications by weights that are zero
  (`discount_sparsity=False`), as in [macs.md](macs.md).
* With zero points: a plan that was made for another form. QONNX's analysis takes no zero points, so
  such an activation is a `Quant` one bit wider, and a `Clip` behind it keeps to the grid. QONNX
  counts that bit. Gates that are inserted for `qonnx` have no zero points.
* Weights with widths by channel: QONNX has one width for a `Quant` node, so it counts all channels
  at the widest. Our count is the sum over channels.
"""


def calibrated(model: Path, images: Arrays, variant: Variant, seed: int) -> cgmq.Mirror:
    """A mirror for QONNX with calibrated ranges and drawn widths."""
    prepared = cgmq.prepare(model)
    gated = cgmq.insert_gates(prepared, target="qonnx", widths=(2, 4, 8), **variant.settings)
    mirror = cgmq.Mirror(gated)
    cgmq.calibrate(mirror, open_data(images, prepared))
    rng = np.random.default_rng(seed)
    for quantizer in mirror.quantizers.values():
        spec = quantizer.spec
        if spec.role is not Role.BIAS:
            quantizer.set_gate(quantizer.gate_for(rng.choice(variant.widths, spec.gate_shape)))
    return mirror


def compare(
    name: str, model: Path, images: Arrays, variant: Variant, count: int, pythons: list[str]
) -> dict[str, Row]:
    """Writes one plan and runs it in QONNX; rows by the versions of each interpreter."""
    inputs = {key: array for key, array in images.items() if key != "label"}
    mirror = calibrated(model, _first(inputs, CALIBRATED), variant, seed=0)
    plan = cgmq.Guide(mirror, "100%").plan()
    assert plan.cost is not None
    tested = {key: array[-count:] for key, array in inputs.items()}
    gated = mirror.to_model()
    wanted = open_session(gated, optimize=False).run(None, tested)[0]
    written = cgmq.write_back(gated, plan, form="qonnx")
    report = cgmq.inspect(written)
    weights = [t for t in report.tensors.values() if t.role is Role.WEIGHT]
    rows = {}
    for python in pythons:
        found, cost = run_in_qonnx(written, tested, python)
        rows[cost["versions"]] = Row(
            model=name,
            variant=variant.name,
            images=count,
            difference=float(np.abs(found - wanted).max()),
            largest=float(np.abs(wanted).max()),
            agreement=float((found.argmax(-1) == wanted.argmax(-1)).mean()),
            macs=(report.macs, int(cost["total_macs"])),
            bops=(plan.cost.bops, report.bops, int(cost["total_bops"])),
            weight_bits=(
                sum(width * number for t in weights for width, number in t.counts.items()),
                int(cost["total_mem_w_bits"]),
            ),
        )
    return rows


def run_in_qonnx(
    model: ir.Model, inputs: Mapping[str, Any], python: str
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """First output of a model in QONNX's executor, and its cost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(model, folder / "model.onnx")
        np.savez(folder / "inputs.npz", **inputs)
        files = [str(folder / file) for file in ("model.onnx", "inputs.npz", "outputs.npz")]
        done = subprocess.run([python, str(WORKER), *files], stdout=subprocess.PIPE, check=True)
        return np.load(files[2])["arr_0"], json.loads(done.stdout)


def _first(arrays: Arrays, count: int) -> Arrays:
    return {name: array[:count] for name, array in arrays.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--shared", type=Path, required=True, help="folder with ResNet-20 and CIFAR"
    )
    parser.add_argument(
        "--python", action="append", required=True, help="interpreter that has QONNX; repeatable"
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()

    from tools.fetch.deploy_models import cifar10  # needs Pillow

    subjects = {
        "LeNet-5": (EXAMPLE / "lenet5.onnx", dict(np.load(EXAMPLE / "test.npz"))),
        "ResNet-20": (
            options.shared / "models" / "resnet20_cifar10.onnx",
            cifar10(options.shared, train=10, test=1000)[1],
        ),
    }
    rows: dict[str, list[Row]] = {}
    for name, (model, images) in subjects.items():
        for variant in VARIANTS:
            made = compare(name, model, images, variant, options.images, options.python)
            for versions, row in made.items():
                print(versions, row.to_markdown(), flush=True)
                rows.setdefault(versions, []).append(row)
    options.out.write_text(write_page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
