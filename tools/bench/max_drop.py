"""Whether ``--max-drop`` keeps its promise on samples that nothing was learned from or chosen by.

    python -m tools.bench.max_drop run --shared SHARED [--only lenet5]
    python -m tools.bench.max_drop table                  # docs/benchmarks/max_drop.md

A run knows its held-out samples only, so that the drop on others may be larger by chance. The
table says how large that chance is: two standard errors of both shares together. SHARED holds
``data/imagenet_1k_sample.zip``, ``data/cifar10_jpeg.zip`` and ``models/resnet20_cifar10.onnx``.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
import torch

import onnx_cgmq as cgmq
from tools.bench.accuracy import CASES as MODELS
from tools.bench.accuracy import Case
from tools.bench.by_model import measure_missing, parser_of
from tools.bench.curve import DIGITS
from tools.bench.models import Output, outputs
from tools.fetch.deploy_models import Arrays

RESULTS = Path("docs/benchmarks/max_drop")
TABLE = Path("docs/benchmarks/max_drop.md")
DROPS: Final = {
    "lenet5": "1%",
    "resnet20": "1%",
    "magika": "2%:class",
    "ocr-orientation": "2%:class",
    "open-nsfw": "snr:30dB",
}
CASES = tuple(case for case in (DIGITS, *MODELS) if case.name in DROPS)
_AT_ONCE = 8  # samples that are judged together
_DRAWS = 500  # of samples, for the error of a signal-to-noise ratio


def measure(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one model."""
    asked, source = DROPS[case.name], case.model(arguments.cache, arguments.shared)
    train, test = case.data(arguments.shared)
    output = arguments.files / f"{case.name}.max-drop.onnx"
    began = time.process_time()
    result = cgmq.quantize(
        source, train, max_drop=asked, output=output, effort=arguments.effort, seed=0
    )
    drop = result.drop
    assert drop is not None  # it was asked for
    record = {
        "asked": asked,
        "found": drop.amount,
        "found_error": drop.error,
        "found_kept": drop.kept,
        "held_out": drop.samples,
        **judge(source, output, test, drop.samples),
        "rbop": cgmq.inspect(output).rbop,
        "seconds": round(time.process_time() - began, 1),
        "effort": arguments.effort,
    }
    print(case.name, record, flush=True)
    return record


def judge(source: Path, written: Path, test: Arrays, held_out: int) -> dict[str, float | int]:
    """What a written file loses on other samples, by each measure, and the error of a ratio."""
    before, after = (outputs(file, test, _AT_ONCE) for file in (source, written))
    found: dict[str, float | int] = {"judged": len(before), **_ratio(before, after, held_out)}
    if before.ndim != 2:
        return found
    found["changed"] = float((before.argmax(1) != after.argmax(1)).mean())
    if "label" in test:
        right = [float((scores.argmax(1) == test["label"]).mean()) for scores in (before, after)]
        found["lost"] = right[0] - right[1]
    return found


def _ratio(before: Output, after: Output, held_out: int) -> dict[str, float]:
    """The signal-to-noise ratio in dB, and how much it differs by chance from that held out."""
    rows = len(before)
    signal = np.square(before.astype(np.float64)).reshape(rows, -1).sum(1)
    noise = np.square(before.astype(np.float64) - after).reshape(rows, -1).sum(1)
    generator = np.random.default_rng(0)

    def error(samples: int) -> float:
        drawn = generator.integers(0, rows, (_DRAWS, samples))
        return float(np.std(10 * np.log10(signal[drawn].sum(1) / noise[drawn].sum(1))))

    return {
        "snr_db": float(10 * np.log10(signal.sum() / noise.sum())),
        "snr_error": math.hypot(error(rows), error(held_out)),
    }


def run(arguments: argparse.Namespace) -> None:
    """Measures the models that have no result yet."""
    measure_missing(CASES, RESULTS, measure, arguments)


def table(_: argparse.Namespace) -> None:
    """Writes the table from the results."""
    lines = [
        "# The promise of --max-drop",
        "",
        "Made by `python -m tools.bench.max_drop run` and `table`; do not edit.",
        "",
        f"onnxruntime {ort.__version__}, torch {torch.__version__}, {platform.machine()}. The "
        "smallest cost at which a run finds no larger drop on the samples that it held out "
        "(`--effort fast`), and the drop of the file on samples that nothing was learned from or "
        "chosen by. *By chance*: two standard errors, of both shares together. Seconds are of the "
        "processor, for the whole search.",
        "",
        "| model | asked | held out | found | judged | drop there | by chance | kept | RBOP % "
        "| s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        path = RESULTS / f"{case.name}.json"
        if path.exists():
            lines.append(_row(case.name, json.loads(path.read_text(encoding="utf-8"))))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE)


def _row(name: str, record: dict[str, Any]) -> str:
    if record["asked"].startswith("snr"):
        chance = 2 * record["snr_error"]
        found, there = f"{record['found']:.1f} dB", f"{record['snr_db']:.1f} dB"
        least = float(record["asked"].removeprefix("snr:").removesuffix("dB"))
        kept, by_chance = record["snr_db"] >= least - chance, f"{chance:.1f} dB"
    else:
        lost = record["changed" if record["asked"].endswith("class") else "lost"]
        variance = max(0.0, record["changed"] - lost**2) / record["judged"]
        chance = 2 * math.hypot(math.sqrt(variance), record["found_error"])
        found, there, by_chance = f"{record['found']:.2%}", f"{lost:.2%}", f"{chance:.2%}"
        kept = lost <= float(record["asked"].split("%")[0]) / 100 + chance
    return (
        f"| {name} | {record['asked']} | {record['held_out']:,} | {found} "
        f"| {record['judged']:,} | {there} | {by_chance} | {'yes' if kept else '**no**'} "
        f"| {100 * record['rbop']:.2f} | {record['seconds']:.0f} |"
    )


def main() -> None:
    """Parses the command line."""
    parser, _ = parser_of(__doc__, run, table, Path("runs/max_drop"), effort=cgmq.Effort.FAST)
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
