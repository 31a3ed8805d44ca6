"""LeNet-5 on full MNIST under bounds: accuracy, RBOP, size and latency of the written files.

Every run starts from ``examples/mnist/lenet5.onnx``, learns on the first 55,000 training digits and
two copies of them moved by up to two pixels (the float model was trained on moved digits too),
chooses its best state on the last 5,000, and touches the 10,000 test digits once, at the end, in
onnxruntime on the written file. RBOP is counted from the file alone.

    python -m tools.bench.lenet5 run --cache .cache/mnist     # resumable; one JSON for each run
    python -m tools.bench.lenet5 run --shard 1/2 & python -m tools.bench.lenet5 run --shard 2/2
    python -m tools.bench.lenet5 table --cache .cache/mnist   # writes docs/benchmarks/lenet5.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

import onnx_cgmq as cgmq
from onnx_cgmq.contract.events import EpochDone, Event
from onnx_cgmq.ort.session import open_session
from tools.fetch.mnist import DEFAULT_CACHE, Images, load_mnist

MODEL = Path("examples/mnist/lenet5.onnx")
RESULTS = Path("docs/benchmarks/lenet5")
TABLE = Path("docs/benchmarks/lenet5.md")
TRAIN = 55_000  # the float model was trained on these; the other 5,000 training digits validate
COPIES, LARGEST_SHIFT = 2, 2  # moved copies of the training digits; pixels
LATENCY_ROUNDS, LATENCY_CALLS = 15, 60


@dataclass(frozen=True)
class Run:
    """One row of the table."""

    bound: str
    granularity: str
    seed: int = 0
    direction: str = "fisher"
    prune: bool = False

    @property
    def epochs(self) -> int:
        """Passes over the 165,000 training images, within 10 minutes a run.

        The tightest bound gets more, most of all with a single width for each tensor.
        """
        if self.bound != "0.40%":
            return 2
        return 6 if self.granularity == "tensor" else 4

    @property
    def name(self) -> str:
        parts = [self.granularity, self.bound.rstrip("%"), f"seed{self.seed}", self.direction]
        return "-".join([*parts, "prune"] if self.prune else parts)


BOUNDS = ("0.40%", "0.90%", "1.40%", "2.00%", "5.00%")
GRANULARITIES = ("tensor", "element")
RUNS = (
    *(Run(bound, granularity) for bound in BOUNDS for granularity in GRANULARITIES),
    *(
        Run("1.40%", "tensor", direction=direction)
        for direction in ("gradient", "gradient_magnitude", "gradient_times_magnitude")
    ),
    *(Run(bound, "element", prune=True) for bound in ("0.30%", "0.20%")),
    Run("1.40%", "channel"),
    *(Run("0.40%", granularity, seed) for seed in (1, 2) for granularity in GRANULARITIES),
)


@dataclass(frozen=True)
class Digits:
    """MNIST, split as all runs use it."""

    train: dict[str, Any]
    validation: dict[str, Any]
    test: dict[str, Any]

    @classmethod
    def load(cls, cache: Path) -> Digits:
        images, labels, test_images, test_labels = load_mnist(cache)
        moved = [_moved(images[:TRAIN], seed) for seed in range(COPIES)]
        return cls(
            {
                "image": np.concatenate([images[:TRAIN], *moved]),
                "label": np.tile(labels[:TRAIN], 1 + COPIES),
            },
            {"image": images[TRAIN:], "label": labels[TRAIN:]},
            {"image": test_images, "label": test_labels},
        )


def _moved(images: Images, seed: int) -> Images:
    """Every image moved by up to two pixels each way, zeros moving in."""
    generator = np.random.default_rng(seed)
    padded = np.pad(images, ((0, 0), (0, 0), (LARGEST_SHIFT,) * 2, (LARGEST_SHIFT,) * 2))
    size = images.shape[2]
    offsets = generator.integers(0, 2 * LARGEST_SHIFT + 1, (len(images), 2))
    moved = np.empty_like(images)
    for y in range(2 * LARGEST_SHIFT + 1):
        for x in range(2 * LARGEST_SHIFT + 1):
            here = (offsets == (y, x)).all(axis=1)
            moved[here] = padded[here, :, y : y + size, x : x + size]
    return moved


def run_one(run: Run, digits: Digits, files: Path) -> dict[str, Any]:
    """Quantizes under one bound and measures the written file on the test digits."""
    output = files / f"{run.name}.onnx"
    resumed = output.with_suffix(".checkpoint").exists()
    started = time.perf_counter()
    result = cgmq.quantize(
        MODEL,
        digits.train,
        run.bound,
        validation=digits.validation,
        output=output,
        resume=True,
        progress=_show,
        target="generic",
        epochs=run.epochs,
        granularity=run.granularity,
        direction=run.direction,
        prune=run.prune,
        seed=run.seed,
    )
    seconds = time.perf_counter() - started
    check = cgmq.verify(result.mirror, output, digits.test, bound=run.bound)
    report = cgmq.inspect(output)
    return {
        "run": asdict(run),
        "accuracy": check.accuracy,
        "mirror_accuracy": check.reference_accuracy,
        "class_agreement": check.class_agreement,
        "rbop": report.rbop,
        "bops": report.bops,
        "validation_accuracy": result.outcome.validation_accuracy,
        "epochs": result.outcome.epochs * (1 + COPIES),
        "best_epoch": result.outcome.best_epoch,
        "seconds": round(seconds, 1),
        "resumed": resumed,
        "threads": torch.get_num_threads(),
        "file_bytes": output.stat().st_size,
        "weight_bytes": report.weight_bytes,
        "widths": {name: round(plan.mean_bits, 2) for name, plan in result.plan.tensors.items()},
    }


def _show(event: Event) -> None:
    if isinstance(event, EpochDone):
        print(
            f"  epoch {event.epoch} {event.phase}: loss {event.loss:.4f}, validation "
            f"{event.validation_loss:.4f} {event.validation_accuracy:.2%}, RBOP {event.rbop:.3%}, "
            f"{event.seconds:.0f} s",
            flush=True,
        )


def run_all(arguments: argparse.Namespace) -> None:
    """Makes all runs of a shard that have no result yet."""
    torch.set_num_threads(arguments.threads)
    digits = Digits.load(arguments.cache)
    RESULTS.mkdir(parents=True, exist_ok=True)
    arguments.files.mkdir(parents=True, exist_ok=True)
    shard, shards = (int(part) for part in arguments.shard.split("/"))
    for run in RUNS[shard - 1 :: shards]:
        target = RESULTS / f"{run.name}.json"
        if target.exists() or not run.name.startswith(arguments.only):
            continue
        print(run.name, flush=True)
        record = run_one(run, digits, arguments.files)
        target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"  test {record['accuracy']:.2%}, RBOP {record['rbop']:.4%}", flush=True)


def latencies(models: dict[str, Path], image: Images) -> dict[str, float]:
    """Median milliseconds for one digit on one thread; all models in turn, round by round."""
    sessions = {name: open_session(path, threads=1) for name, path in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for session in sessions.values():
        session.run(None, {"image": image})
    for _ in range(LATENCY_ROUNDS):
        for name, session in sessions.items():
            start = time.perf_counter()
            for _ in range(LATENCY_CALLS):
                session.run(None, {"image": image})
            times[name].append((time.perf_counter() - start) / LATENCY_CALLS * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def float_accuracy(digits: Digits) -> float:
    """Accuracy of the float file on the test digits, in onnxruntime."""
    check = cgmq.verify(MODEL, MODEL, digits.test)
    assert check.accuracy is not None
    return check.accuracy


def write_table(arguments: argparse.Namespace) -> None:
    """Times the written files against the float file and writes the tables."""
    digits = Digits.load(arguments.cache)
    records = {
        run.name: json.loads((RESULTS / f"{run.name}.json").read_text(encoding="utf-8"))
        for run in RUNS
        if (RESULTS / f"{run.name}.json").exists()
    }
    models = {"float": MODEL, **{name: arguments.files / f"{name}.onnx" for name in records}}
    times = latencies(models, digits.test["image"][:1])
    base = float_accuracy(digits)
    runs = {run.name: run for run in RUNS}

    def rows(names: list[str]) -> list[str]:
        return [_row(runs[name], records[name], times[name], times["float"]) for name in names]

    main = [Run(bound, granularity).name for granularity in GRANULARITIES for bound in BOUNDS]
    sections = [
        ("Bounds and granularities", main),
        ("Channel granularity", [r.name for r in RUNS if r.granularity == "channel"]),
        ("Three seeds at 0.40 %", [r.name for r in RUNS if r.bound == "0.40%"]),
        (
            "Directions at 1.40 %, granularity tensor",
            [r.name for r in RUNS if r.bound == "1.40%" and r.granularity == "tensor"],
        ),
        ("Pruning allowed", [r.name for r in RUNS if r.prune]),
    ]
    lines = _head(base, times["float"], records)
    for title, names in sections:
        present = [name for name in names if name in records]
        lines += [f"## {title}", "", *_HEADER, *rows(present), ""]
        missing = [name for name in names if name not in records]
        if missing:
            lines += [f"Not run yet: {', '.join(missing)}.", ""]
        if title.startswith("Three"):
            lines += _spread(runs, records)
    lines += ["## Learned widths", "", "Mean bits of every tensor.", ""]
    lines += [f"* `{name}`: {_widths(record)}" for name, record in records.items()]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


_HEADER = [
    "| bound | granularity | direction | seed | accuracy % | RBOP % | epochs | minutes "
    "| file, bytes | latency / float | same class as mirror |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
]


def _row(run: Run, record: dict[str, Any], milliseconds: float, float_ms: float) -> str:
    same = round(record["class_agreement"] * 10_000)
    minutes = f"{record['seconds'] / 60:.1f}" + ("*" if record.get("resumed") else "")
    bound = run.bound.rstrip("%") + (" (pruning)" if run.prune else "")
    return (
        f"| {bound} | {run.granularity} | {run.direction} | {run.seed} "
        f"| {record['accuracy']:.2%} | {record['rbop']:.4%} | {record['epochs']:g} "
        f"| {minutes} | {record['file_bytes']:,} "
        f"| {milliseconds / float_ms:.2f} | {same:,} of 10,000 |"
    ).replace("%", "")


def _spread(runs: dict[str, Run], records: dict[str, Any]) -> list[str]:
    lines = []
    for granularity in GRANULARITIES:
        found = [
            record["accuracy"]
            for name, record in records.items()
            if runs[name].bound == "0.40%" and runs[name].granularity == granularity
        ]
        if len(found) > 1:
            lines.append(
                f"* {granularity}: mean {statistics.mean(found):.2%}, standard deviation "
                f"{statistics.stdev(found):.2%} over {len(found)} seeds"
            )
    return [*lines, ""]


def _widths(record: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {bits:g}" for name, bits in record["widths"].items() if "bias" not in name
    )


def _head(base: float, float_ms: float, records: dict[str, Any]) -> list[str]:
    threads = sorted({record["threads"] for record in records.values()})
    return [
        "# LeNet-5 on MNIST",
        "",
        "Made by `python -m tools.bench.lenet5 run` and `table`; do not edit.",
        "",
        f"Float model: {base:.2%} of the 10,000 test digits right, {MODEL.stat().st_size:,} bytes, "
        f"{float_ms:.3f} ms for one digit on one thread.",
        f"Machine: {os.cpu_count()} cores, {platform.machine()}; onnxruntime {ort.__version__}, "
        f"torch {torch.__version__}; {'/'.join(map(str, threads))} training thread(s) a run.",
        "Accuracy: onnxruntime with default optimizations on the written file, all test digits. "
        "RBOP: counted from the file alone. Epochs: passes over 55,000 images. "
        "Minutes: wall time of the run; with a * the run was resumed, and this is its last part. "
        "Latency: medians of interleaved rounds in one process, "
        "one thread, batch 1, as a ratio to the float file (below 1 is faster).",
        "For comparison, as published: Bayesian Bits 99.30 % at 0.36 % RBOP with pruning "
        "(arXiv 2005.07093, float 99.36 %).",
        "Other work ran on the machine during some runs, which makes their minutes longer.",
        "Rows with one gate per tensor and the direction fisher are of version 0.1.0 before stages "
        "came first: their gates moved while weights trained.",
        "",
    ]


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, action in (("run", run_all), ("table", write_table)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        command.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
        command.add_argument("--files", type=Path, default=Path("runs/lenet5"))
    run = commands.choices["run"]
    run.add_argument("--threads", type=int, default=torch.get_num_threads())
    run.add_argument("--shard", default="1/1", help="K/N: every N-th run, starting with the K-th")
    run.add_argument("--only", default="", help="runs whose name starts so")
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
