"""What ``sensitivity`` measures against the truth: written files with one narrow weight.

The ranking is that of ``cgmq.sensitivity``: the increase of the loss if one weight alone has 4
bits, in the mirror, on training samples without labels. The truth is a file for each weight, in
which nothing else is quantized, compared with the float file in onnxruntime on other samples.

    python -m tools.bench.sensitivity run --shared SHARED [--only resnet20]
    python -m tools.bench.sensitivity table               # docs/benchmarks/sensitivity.md

SHARED holds ``data/imagenet_1k_sample.zip``, ``data/cifar10_jpeg.zip`` and
``models/resnet20_cifar10.onnx``.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

import onnx_cgmq as cgmq
from onnx_cgmq.data import open_data
from onnx_cgmq.graph.files.load import save_model
from tools.bench.accuracy import CASES, Case, snr_db
from tools.bench.by_model import measure_missing, parser_of
from tools.bench.models import outputs

RESULTS = Path("docs/benchmarks/sensitivity")
TABLE = Path("docs/benchmarks/sensitivity.md")
MODELS = ("resnet20", "efficientnet-lite0", "ocr-orientation")
WIDTH, JUDGED, AT_ONCE = 4, 256, 8
LEAST_CORRELATION = 0.8


def spearman(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """The correlation of the ranks of two rows of numbers; equal numbers share a rank."""
    rows = [np.asarray(row) for row in (one, other)]
    ranks = [(row[:, None] > row).sum(1) + (row[:, None] == row).sum(1) / 2 for row in rows]
    return float(np.corrcoef(*ranks)[0, 1])


def measure(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one model."""
    cache, shared, folder = arguments.cache, arguments.shared, arguments.files
    source, (train, test) = case.model(cache, shared), case.data(shared)
    train.pop("label", None)
    judged = {name: array[:JUDGED] for name, array in test.items()}
    found = cgmq.sensitivity(source, train, width=WIDTH)
    float_model = cgmq.prepare(source)
    float_model = cgmq.equalize(float_model, train)
    samples, wanted = open_data(train, float_model), outputs(source, judged, AT_ONCE)
    layers = {}
    for tensor in found.tensors:
        if tensor.role is not cgmq.Role.WEIGHT:
            continue
        gated = cgmq.insert_gates(
            float_model, keep_float=("*",), fix={tensor.name: WIDTH}, integer_kernels=False
        )
        mirror = cgmq.Mirror(gated)
        cgmq.calibrate(mirror, samples, samples=1)  # a weight is fitted to itself
        file = folder / f"{case.name}.one-weight.onnx"
        save_model(cgmq.write_back(gated, mirror.plan()), file)
        given = outputs(file, judged, AT_ONCE)
        layers[tensor.name] = {
            "loss": tensor.alone[WIDTH],
            "snr_db": snr_db(wanted, given),
            "same_class": float((wanted.argmax(1) == given.argmax(1)).mean()),
        }
        print(tensor.name, layers[tensor.name], flush=True)
    return {"layers": layers, "samples": found.samples, "judged": len(wanted)}


def run(arguments: argparse.Namespace) -> None:
    """Measures the models that have no result yet."""
    chosen = (case for case in CASES if case.name in MODELS)
    measure_missing(chosen, RESULTS, measure, arguments)


def table(_: argparse.Namespace) -> None:
    """Writes the table from the results."""
    lines = [
        "# Sensitivity against the truth",
        "",
        "Made by `python -m tools.bench.sensitivity run` and `table`; do not edit.",
        "",
        f"onnxruntime {ort.__version__}, torch {torch.__version__}, {platform.machine()}. For each "
        f"weight: what `onnx-cgmq sensitivity` measures at {WIDTH} bits, on training samples "
        "without labels and in the mirror, and how far a written file in which this weight alone "
        f"has {WIDTH} bits agrees with the float file, in onnxruntime and on other samples. The "
        f"correlation is that of ranks (Spearman); {LEAST_CORRELATION} is what we ask for.",
        "",
        "| model | weights | rank correlation with the loss of SNR | with the change of classes "
        "| samples | judged |",
        "|---|---|---|---|---|---|",
    ]
    rankings = []
    for name in MODELS:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        layers = record["layers"]
        loss, snr, same = (
            [layer[key] for layer in layers.values()] for key in ("loss", "snr_db", "same_class")
        )
        lines.append(
            f"| {name} | {len(layers)} | {spearman(loss, np.negative(snr)):.3f} "
            f"| {spearman(loss, np.negative(same)):.3f} | {record['samples']} "
            f"| {record['judged']} |"
        )
        truth = {name: rank for rank, name in enumerate(_by_snr(layers), 1)}
        rankings += ["", f"## {name}", "", "| rank | weight | increase of the loss | rank by SNR "
                     "| SNR, dB | same class |", "|---|---|---|---|---|---|"]  # fmt: skip
        rankings += [
            f"| {rank} | `{weight}` | {layer['loss']:.3g} | {truth[weight]} "
            f"| {layer['snr_db']:.1f} | {layer['same_class']:.1%} |"
            for rank, (weight, layer) in enumerate(layers.items(), 1)
        ]
    TABLE.write_text("\n".join([*lines, *rankings]) + "\n", encoding="utf-8")
    print(TABLE)


def _by_snr(layers: dict[str, dict[str, float]]) -> list[str]:
    return sorted(layers, key=lambda name: layers[name]["snr_db"])


def main() -> None:
    """Parses the command line."""
    parser, _ = parser_of(__doc__, run, table, Path("runs/sensitivity"))
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
