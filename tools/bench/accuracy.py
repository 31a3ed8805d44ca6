"""How good the files are: ours beside those of other tools, on the same samples.

Nothing has labels but the runs named so, which train on all of CIFAR-10's training images.

Each run is a process of its own, whose time and peak memory are measured. The written file is
compared with the float file in onnxruntime, on samples that nothing was learned from.

    python -m tools.bench.accuracy run --shared SHARED [--only resnet20] [--methods static,fast]
    python -m tools.bench.accuracy run --shared SHARED --environments FOLDER --methods aimet,nncf
    python -m tools.bench.accuracy table                  # docs/benchmarks/accuracy.md

``run`` makes all runs that have no result yet, so that it can be stopped and started again. FOLDER
is what ``python -m tools.bench.peers install`` made; without it the other tools are left out, but
for onnxruntime's.
SHARED holds ``data/imagenet_1k_sample.zip``, ``data/cifar10_jpeg.zip`` and
``models/resnet20_cifar10.onnx``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

import onnx_cgmq as cgmq
from tools.bench import peers
from tools.bench.deploy import STATICS, make_static, processor
from tools.bench.models import JOBS, TEST_SEED, Output, outputs
from tools.fetch import deploy_models
from tools.fetch.augmented import AugmentedImages, held_out
from tools.fetch.deploy_models import Arrays
from tools.fetch.model_data import samples
from tools.fetch.models import fetch
from tools.measure.process import measured

RESULTS = Path("docs/benchmarks/accuracy")
TABLE = Path("docs/benchmarks/accuracy.md")
_AT_ONCE = 8  # samples that are judged together
EPOCHS = 8  # of runs with labels: two thirds of the default, for an hour on one thread
HELD_OUT = 2500  # labelled images that choose the best state, of 50,000


@dataclass(frozen=True)
class Case:
    """One model with its data.

    Attributes:
        name: Its name in the table.
        model: ``(cache, shared) -> path`` of the float file.
        data: ``(cache, shared) -> (train, test)``.
        score: Compares the outputs of the float file and of another; ``None``: by labels.
        label: What the score is.
        labelled: ``shared -> train`` with labels, for training end to end; ``None``: none.
    """

    name: str
    model: Callable[[Path, Path], Path]
    data: Callable[[Path], tuple[Arrays, Arrays]]
    score: Callable[[Output, Output], float] | None
    label: str
    labelled: Callable[[Path], Arrays] | None = None


def _packaged(name: str) -> Case:
    job = JOBS[name]

    def data(shared: Path) -> tuple[Arrays, Arrays]:
        images = shared / "data" / "imagenet_1k_sample.zip"
        return samples(name, job.train, 0, images), samples(name, job.test, TEST_SEED, images)

    return Case(name, lambda cache, _: fetch(cache)[name], data, job.score, job.label)


CASES = (
    Case(
        "resnet20",
        deploy_models.resnet20,
        lambda shared: deploy_models.cifar10(shared, 1000, 10000),
        None,
        "accuracy",
        lambda shared: deploy_models.cifar10(shared, 50000, 10)[0],
    ),
    Case(
        "efficientnet-lite0", deploy_models.efficientnet, deploy_models.imagenet, None, "accuracy"
    ),
    *(_packaged(name) for name in JOBS),
)


@dataclass(frozen=True)
class Ours:
    """A run of ours.

    Attributes:
        bound: The bound.
        settings: Other settings than the defaults.
        labelled: Train on the labelled data of the case.
    """

    bound: str
    settings: dict[str, Any]
    labelled: bool = False


_UNIFORM_8 = {"widths": (4,), "activation_widths": (8,)}
_LABELLED = {"epochs": EPOCHS}
METHODS: dict[str, Ours] = {
    "8/8 fast": Ours("6.25%", {"effort": "fast"}),
    "8/8": Ours("6.25%", {}),
    "4/8 by cost": Ours("3.125%", {}),
    "4/8 by cost best": Ours("3.125%", {"effort": "best"}),
    "4/8 by cost fast": Ours("3.125%", {"effort": "fast"}),
    "uniform 4/8": Ours("3.2%", _UNIFORM_8),
    "4/4 by cost": Ours("1.5625%", {}),
    "uniform 4/4": Ours("1.6%", {"widths": (4,)}),
    "labelled 4/4 by cost": Ours("1.5625%", _LABELLED, labelled=True),
    "labelled uniform 4/4": Ours("1.6%", {**_LABELLED, "widths": (4,)}, labelled=True),
    "labelled 0.6 %": Ours("0.6%", _LABELLED, labelled=True),
    "labelled uniform 2/2": Ours("0.45%", {**_LABELLED, "widths": (2,)}, labelled=True),
}


def snr_db(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> float:
    """Signal over error of outputs, in decibels."""
    signal = np.square(before.astype(np.float64)).sum()
    return float(10 * np.log10(signal / np.square(before.astype(np.float64) - after).sum()))


def judge(case: Case, source: Path, written: Path, test: Arrays) -> dict[str, float]:
    """Compares a written file with the float file."""
    before, after = (outputs(file, test, _AT_ONCE) for file in (source, written))
    figures = {"snr_db": snr_db(before, after)}
    if case.score is not None:
        return {**figures, "score": case.score(before, after), "float_score": 1.0}
    labels = test["label"]
    return {
        **figures,
        "score": float((after.argmax(1) == labels).mean()),
        "float_score": float((before.argmax(1) == labels).mean()),
    }


def one(arguments: argparse.Namespace) -> None:
    """Makes one run and prints its figures as JSON, on the last line."""
    torch.set_num_threads(arguments.threads)
    arguments.files.mkdir(parents=True, exist_ok=True)
    case = next(case for case in CASES if case.name == arguments.case)
    source = case.model(arguments.cache, arguments.shared)
    if _is_labelled(arguments.method):
        assert case.labelled is not None  # others are not chosen
        train = case.labelled(arguments.shared)
    else:
        train = case.data(arguments.shared)[0]  # the test samples take no memory in the run
        train.pop("label", None)
    output = arguments.files / f"{case.name}.{arguments.method.replace('/', '-')}.onnx"
    try:
        figures = quantize(case, arguments, source, train, output)
    except peers.PeerError as error:
        sys.exit(str(error))
    _, test = case.data(arguments.shared)
    record = {
        **judge(case, source, output, test),
        "rbop": rbop(arguments.method, output),
        "bytes": output.stat().st_size,
        "float_bytes": source.stat().st_size,
        **figures,
        "train": len(next(iter(train.values()))),
        "test": len(next(iter(test.values()))),
        "threads": arguments.threads,
        "processor": processor(),
    }
    print(json.dumps(record))


def quantize(
    case: Case, arguments: argparse.Namespace, source: Path, train: Arrays, output: Path
) -> dict[str, Any]:
    """Writes the file; what that took."""
    name = arguments.method
    if name in peers.METHODS:
        return peers.quantize(
            peers.METHODS[name],
            case.name,
            source,
            train,
            output,
            environments=arguments.environments,
            threads=arguments.threads,
        )

    def work() -> None:
        if name in STATICS:
            make_static(source, train, output, **STATICS[name])
            return
        ours, validation = METHODS[name], None
        data: Any = train
        if ours.labelled:
            images, validation = held_out(train, HELD_OUT)
            data = AugmentedImages(images)
        cgmq.quantize(
            source, data, ours.bound, output=output, validation=validation, **ours.settings
        )

    seconds, peak = measured(work)
    return {"processor_seconds": round(seconds, 1), "peak_bytes": peak}


def rbop(method: str, written: Path) -> float | None:
    """The cost, read from the written file; ``None`` where shapes in another tool's don't tell."""
    if method in STATICS:
        return None
    try:
        return cgmq.inspect(written).rbop
    except cgmq.ModelError:
        if method in peers.METHODS:
            return None
        raise


def run(arguments: argparse.Namespace) -> None:
    """Makes all runs that have no result yet, each in a process of its own."""
    arguments.files.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for case, method in _wanted(arguments):
        target = _result(case.name, method)
        if target.exists():
            continue
        print(case.name, method, flush=True)
        command = [sys.executable, "-m", "tools.bench.accuracy", "one", case.name, method]
        for option in ("shared", "cache", "files", "threads", "environments"):
            if getattr(arguments, option) is not None:
                command += [f"--{option}", str(getattr(arguments, option))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            error = done.stderr.strip().splitlines()[-1:] or ["no message"]
            record: dict[str, Any] = {"error": error[0][:300]}
        else:
            record = json.loads(done.stdout.strip().splitlines()[-1])
        target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print("  ", record, flush=True)


def _wanted(arguments: argparse.Namespace) -> Iterator[tuple[Case, str]]:
    chosen = arguments.methods.split(",") if arguments.methods else []
    for method in (*STATICS, *METHODS, *peers.METHODS):
        if method in peers.METHODS and arguments.environments is None:
            continue
        if chosen and not any(method.startswith(start) for start in chosen):
            continue
        labelled = _is_labelled(method)
        for case in CASES:
            if case.name.startswith(arguments.only) and (case.labelled or not labelled):
                yield case, method


def _is_labelled(method: str) -> bool:
    return method in METHODS and METHODS[method].labelled


def _result(case: str, method: str) -> Path:
    return RESULTS / f"{case}.{method.replace('/', '-').replace(', ', '-').replace(' ', '-')}.json"


def table(_: argparse.Namespace) -> None:
    """Writes the table from the results."""
    records = {
        (case.name, method): json.loads(path.read_text(encoding="utf-8"))
        for case in CASES
        for method in (*STATICS, *peers.METHODS, *METHODS)
        if (path := _result(case.name, method)).exists()
    }
    tools = sorted({record["tool"] for record in records.values() if "tool" in record})
    lines = [
        "# Accuracy",
        "",
        "Made by `python -m tools.bench.accuracy run` and `table`; do not edit.",
        "",
        f"onnxruntime {ort.__version__}, torch {torch.__version__}, {platform.machine()}; "
        f"other tools: {', '.join(tools)}; "
        f"{os.cpu_count()} cores, other work ran on the machine. No labels were used, but in the "
        f"rows `labelled`, which train for {EPOCHS} epochs on {50_000 - HELD_OUT:,} images with "
        f"labels, moved and mirrored at random, and choose by {HELD_OUT:,} others. Every file is "
        "compared with the float file in onnxruntime, on samples that nothing was learned from "
        "or chosen by. All settings are the defaults, but for those in the name of a row; there "
        "is no setting by model, but for the iterations of AIMET. `static`: onnxruntime's "
        "`quantize_static` (QDQ, INT8 weights per channel, its own pre-processing, at most 256 of "
        "the same samples), with two types of activations and both range settings. `nncf`, "
        "`aimet` and `onnxsim`: each in an environment of its own, on the same samples, for "
        f"{peers.LIMIT // 60} minutes at most. `aimet`: weights by channel, after its "
        "cross-layer equalization. `INT4 weights`: activations stay floats, for onnxsim learns to "
        "round INT4 in no other form, and of MatMul and Gemm only. `by cost`: our widths under a "
        "bound that uniform widths just meet; `uniform`: our engine with these widths everywhere. "
        "SNR: of the first output. Minutes and peak memory: of a process that does nothing else, "
        "on one thread; the minutes are processor time, or where they say 'at most', those of a "
        "clock while other work ran.",
        "",
        "| model | method | score | float | SNR, dB | RBOP % | file, bytes | of float | minutes "
        "| peak, GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(case, method, record) for (case, method), record in records.items()]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE)


def _row(case: str, method: str, record: dict[str, Any]) -> str:
    if "error" in record:
        reason = record["error"].replace("|", "/")  # which would end the cell
        return f"| {case} | {method} | failed: {reason} | | | | | | | |"
    label = next(known.label for known in CASES if known.name == case)
    name = f"{method}, {record['note']}" if record.get("note") else method
    cost = "" if record["rbop"] is None else f"{100 * record['rbop']:.3f}"
    clock = "at most " if "seconds" in record else ""
    seconds = record["seconds"] if clock else record["processor_seconds"]
    return (
        f"| {case} | {name} | {label} {100 * record['score']:.2f} % "
        f"| {100 * record['float_score']:.2f} % | {record['snr_db']:.1f} | {cost} "
        f"| {record['bytes']:,} | {record['bytes'] / record['float_bytes']:.2f} "
        f"| {clock}{seconds / 60:.1f} | {record['peak_bytes'] / 1e9:.2f} |"
    )


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    commands.add_parser("table").set_defaults(action=table)
    for name, action in (("run", run), ("one", one)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        if name == "one":
            command.add_argument("case")
            command.add_argument("method")
        else:
            command.add_argument("--only", default="", help="models whose name starts so")
            command.add_argument("--methods", default="", help="methods that start so, by commas")
        command.add_argument("--shared", type=Path, required=True)
        command.add_argument("--cache", type=Path, default=Path(".cache/models"))
        command.add_argument("--files", type=Path, default=Path("runs/accuracy"))
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--environments", type=Path, help="folder of the other tools")
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
