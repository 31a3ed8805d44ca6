"""What a curve takes, and how good its points are, beside single runs under the same bounds.

    python -m tools.bench.curve run --shared SHARED [--only resnet20] [--effort fast]
    python -m tools.bench.curve table                     # docs/benchmarks/curve.md

Nothing has labels in learning. Every file is compared with the float file in onnxruntime, on
samples that nothing was learned from or chosen by. SHARED holds ``data/imagenet_1k_sample.zip``,
``data/cifar10_jpeg.zip`` and ``models/resnet20_cifar10.onnx``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

import onnx_cgmq as cgmq
from tools.bench.accuracy import CASES, Case, judge
from tools.bench.by_model import measure_missing, parser_of
from tools.fetch.deploy_models import Arrays

RESULTS = Path("docs/benchmarks/curve")
TABLE = Path("docs/benchmarks/curve.md")
EXAMPLE = Path("examples/mnist")
MOST_TIME = 2.5


def _digits(_: Path) -> tuple[Arrays, Arrays]:
    train, test = (dict(np.load(EXAMPLE / f"{part}.npz")) for part in ("train", "test"))
    return train, test


DIGITS = Case("lenet5", lambda *_: EXAMPLE / "lenet5.onnx", _digits, None, "accuracy")
SUBJECTS = (
    DIGITS,
    *(case for case in CASES if case.name in ("resnet20", "efficientnet-lite0")),
)


def measure(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one model."""
    source = case.model(arguments.cache, arguments.shared)
    train, test = case.data(arguments.shared)
    train.pop("label", None)
    count = len(next(iter(test.values())))
    spread = np.linspace(0, count - 1, min(count, arguments.judged)).astype(int)  # of all classes
    test = {name: array[spread] for name, array in test.items()}
    folder = arguments.files / f"{case.name}-{arguments.effort}"
    began = time.process_time()
    found = cgmq.curve(source, train, output=folder, effort=arguments.effort)
    record: dict[str, Any] = {"seconds": round(time.process_time() - began, 1), "points": []}
    for point in found.points:
        assert point.file is not None  # there is an output
        cgmq.verify(source, point.file, train, bound=point.bound)
        rbop, size = cgmq.inspect(point.file).rbop, point.file.stat().st_size
        judged = judge(case, source, point.file, test)
        figures = {"bound": point.bound, "rbop": rbop, "bytes": size, **judged}
        record["points"].append({**figures, "knee": point is found.knee})
        print(record["points"][-1], flush=True)
    record["singles"] = []
    for number, point in enumerate(found.points):
        if number * arguments.singles % len(found.points) >= arguments.singles:
            record["singles"].append(None)
            continue
        output = folder / "single.onnx"
        began = time.process_time()
        cgmq.quantize(source, train, point.bound, output=output, effort=arguments.effort)
        seconds = round(time.process_time() - began, 1)
        record["singles"].append({"seconds": seconds, **judge(case, source, output, test)})
        print(record["singles"][-1], flush=True)
    return {
        **record,
        "effort": arguments.effort,
        "train": len(next(iter(train.values()))),
        "test": len(next(iter(test.values()))),
    }


def run(arguments: argparse.Namespace) -> None:
    """Measures the models that have no result yet."""
    measure_missing(SUBJECTS, RESULTS, measure, arguments, suffix=f"-{arguments.effort}")


def table(_: argparse.Namespace) -> None:
    """Writes the table from the results."""
    lines = [
        "# Curves",
        "",
        "Made by `python -m tools.bench.curve run` and `table`; do not edit.",
        "",
        f"onnxruntime {ort.__version__}, torch {torch.__version__}, {platform.machine()}; one "
        "thread of torch. Times are seconds of the processor, because other work ran on the "
        "machine. `onnx-cgmq curve` with its 6 points, and single runs of `quantize` under the "
        "same bounds with the same settings. Every file is compared with the float file in "
        "onnxruntime, on samples that nothing was learned from or chosen by; its bound is counted "
        f"again from the file. No labels in learning. We ask for at most {MOST_TIME} times the "
        "time of a single run (the mean of those made).",
        "",
        "| model | effort | curve, s | single runs | mean, s | curve over a run |",
        "|---|---|---|---|---|---|",
    ]
    details = []
    for path in sorted(RESULTS.glob("*.json"), key=lambda path: path.stem):
        record = json.loads(path.read_text(encoding="utf-8"))
        singles = [single["seconds"] for single in record["singles"] if single]
        mean = sum(singles) / len(singles)
        name = path.stem.removesuffix(f"-{record['effort']}")
        lines.append(
            f"| {name} | {record['effort']} | {record['seconds']:.0f} | {len(singles)} "
            f"| {mean:.0f} | {record['seconds'] / mean:.2f} |"
        )
        details += [
            "",
            f"## {name}, {record['effort']}",
            "",
            f"{record['train']:,} samples to learn on, {record['test']:,} to judge by.",
            "",
            "| bound | RBOP % | file, bytes | SNR, dB | of a single run | score % "
            "| of a single run | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        details += [
            f"| {point['bound']} | {100 * point['rbop']:.3f} | {point['bytes']:,} "
            f"| {point['snr_db']:.1f} | {_figure(single, 'snr_db', '.1f')} "
            f"| {100 * point['score']:.2f} | {_figure(single, 'score', '.2%').rstrip('%')} "
            f"| {'knee' if point['knee'] else ''} |"
            for point, single in zip(record["points"], record["singles"], strict=True)
        ]
    TABLE.write_text("\n".join([*lines, *details]) + "\n", encoding="utf-8")
    print(TABLE)


def _figure(single: dict[str, float] | None, name: str, form: str) -> str:
    return "" if single is None else format(single[name], form)


def main() -> None:
    """Parses the command line."""
    files = Path("runs/curve")
    parser, command = parser_of(__doc__, run, table, files, effort=cgmq.Effort.NORMAL)
    command.add_argument("--singles", type=int, default=6, help="how many single runs, at most 6")
    command.add_argument("--judged", type=int, default=10000, help="the most samples to judge by")
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
