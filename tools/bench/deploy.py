"""Deployed models against onnxruntime's own INT8: latency, size, accuracy, kernels, agreement.

Seven variants of each model (``tools/fetch/deploy_models.py``), all from the same calibration data:
float, ``quantize_static`` of onnxruntime (QDQ, INT8 per channel, after its own pre-processing) with
both types of activations and both range settings, ours with 8 bits everywhere, and ours with 2, 4
and 8 bits under a bound on the size of the weights.

    python -m tools.bench.deploy train --shared SHARED   # resumable: what is learned once
    python -m tools.bench.deploy write --shared SHARED   # the files, with the present code
    python -m tools.bench.deploy table --shared SHARED   # measures; makes docs/benchmarks/deploy.md

SHARED holds ``data/imagenet_1k_sample.zip``, ``data/cifar10_jpeg.zip`` and
``models/resnet20_cifar10.onnx``.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import onnx_cgmq as cgmq
from onnx_cgmq.api.benchmark import Benchmark, Timing, bench
from onnx_cgmq.data import Batch, open_data
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.graph.files.load import load_model, save_model
from onnx_cgmq.ort.session import open_session, run_batch, without_padding
from tools.fetch.deploy_models import SUBJECTS, Arrays, Subject

RESULTS = Path("docs/benchmarks/deploy")
TABLE = Path("docs/benchmarks/deploy.md")
CALIBRATED, AT_ONCE = 256, 16
OURS = ("8-bit", "mixed")
_LATENCY_ROUNDS = 25
_PER_CHANNEL_OPSET = 13  # the first with a scale for each channel


@dataclass(frozen=True)
class Files:
    """Where the variants of one model are."""

    folder: Path
    subject: Subject

    def path(self, variant: str) -> Path:
        return self.folder / f"{self.subject.name}.{variant}.onnx"

    def gated(self, variant: str) -> Path:
        """What was learned: the gated model."""
        return self.path(f"{variant}.gated")

    def record(self) -> dict[str, Any]:
        """Figures so far, by variant."""
        path = self._record_path
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def write_record(self, record: dict[str, Any]) -> None:
        self._record_path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @property
    def _record_path(self) -> Path:
        return RESULTS / f"{self.subject.name}.json"


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration data to onnxruntime in batches."""

    def __init__(self, arrays: Arrays) -> None:
        inputs = {name: array for name, array in arrays.items() if name != "label"}
        count = min(CALIBRATED, *(len(array) for array in inputs.values()))
        self._batches = iter(
            {name: array[start : start + AT_ONCE] for name, array in inputs.items()}
            for start in range(0, count - AT_ONCE + 1, AT_ONCE)
        )

    def get_next(self) -> Arrays | None:
        return next(self._batches, None)


def static_settings() -> dict[str, dict[str, Any]]:
    """The four settings of ``quantize_static`` that users try, by name."""
    return {
        f"{name}{', reduced' if reduced else ''}": {"activations": kind, "reduce_range": reduced}
        for name, kind in (("UINT8", QuantType.QUInt8), ("INT8", QuantType.QInt8))
        for reduced in (False, True)
    }


STATICS = {f"static {name}": settings for name, settings in static_settings().items()}
VARIANTS = ("float", *STATICS, *OURS)


def make_static(
    model: Path,
    arrays: Arrays,
    target: Path,
    *,
    activations: QuantType = QuantType.QInt8,
    reduce_range: bool = False,
) -> None:
    """INT8 by onnxruntime's own quantizer."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        proto = onnx.load(model)
        version = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
        if version < _PER_CHANNEL_OPSET:
            model = Path(folder) / "upgraded.onnx"
            onnx.save(onnx.version_converter.convert_version(proto, _PER_CHANNEL_OPSET), model)
        try:
            quant_pre_process(model, prepared)
        except Exception:  # its symbolic shape inference can't take every graph
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Reader(arrays),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            reduce_range=reduce_range,
        )


def agreement(deployed: Path, mirror: cgmq.Mirror, arrays: Arrays) -> dict[str, dict[str, float]]:
    """How the file agrees with its mirror, with all optimizations of onnxruntime and without any.

    Returns:
        By kind of run, the share of samples of the same class, and the share of equal codes among
        all that quantizers of activations make.
    """
    traced = with_codes(deployed)
    models = ((deployed, mirror), (traced, cgmq.Mirror(traced)))
    sessions = {
        kind: [open_session(model, optimize=optimize) for model, _ in models]
        for kind, optimize in (("optimized", True), ("plain", False))
    }
    found: dict[str, Counter[str]] = {kind: Counter() for kind in sessions}
    for batch in open_data(arrays, mirror.model).batches(AT_ONCE):
        wanted, codes = (run_torch(reference, batch) for _, reference in models)
        for kind, (plain, tracing) in sessions.items():
            got, got_codes = run_batch(plain, batch), run_batch(tracing, batch)
            name, scores = next(iter(wanted.items()))
            same = got[name].argmax(-1) == scores.argmax(-1)
            found[kind].update(samples=same.size, same=int(same.sum()))
            for name, array in codes.items():
                if array.dtype == np.uint8:
                    equal = int((got_codes[name] == array).sum())
                    found[kind].update(codes=array.size, equal=equal)
    return {
        kind: {
            "same_class": counts["same"] / counts["samples"],
            "equal_codes": counts["equal"] / counts["codes"],
        }
        for kind, counts in found.items()
    }


def with_codes(deployed: Path) -> onnx.ModelProto:
    """The file with what its quantizers of activations make as further outputs."""
    model = onnx.load(deployed)
    made = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in made
    )
    return model


def run_torch(mirror: cgmq.Mirror, batch: Batch) -> Arrays:
    """Outputs of a mirror for a batch."""
    inputs = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
    with torch.no_grad():
        outputs = mirror.eval()(inputs)
    return {name: without_padding(value.numpy(), batch) for name, value in outputs.items()}


def train(arguments: argparse.Namespace) -> None:
    """Learns the plans that are not there yet, and keeps them as gated models."""
    torch.set_num_threads(arguments.threads)
    for files in _files(arguments):
        subject = files.subject
        source = subject.model(arguments.cache, arguments.shared)
        files.path("float").write_bytes(source.read_bytes())
        train, _ = subject.data(arguments.shared)
        for variant, settings in STATICS.items():
            if not files.path(variant).exists():
                make_static(source, train, files.path(variant), **settings)
        for variant in OURS:
            if files.gated(variant).exists():
                continue
            print(subject.name, variant, flush=True)
            record = files.record()
            record[variant] = learn(files, variant, source, train)
            files.write_record(record)


def learn(files: Files, variant: str, source: Path, train: Arrays) -> dict[str, Any]:
    """Learns one plan; how that went."""
    mixed = variant == "mixed"
    result = cgmq.quantize(
        source,
        train,
        "size:14%" if mixed else "100%",
        activation_widths=(8,),  # what integer kernels take: fewer bits would only be slower
        effort="fast",
        output=files.path(variant),
        resume=True,
        progress=lambda event: (
            print("   ", event.to_record(), flush=True) if event.kind == "stage" else None
        ),
    )
    save_model(result.mirror.to_model(), files.gated(variant))
    return {"validation_loss": result.outcome.validation_loss}


def write(arguments: argparse.Namespace) -> None:
    """Writes what was learned with the present code, and compares the files with their mirrors."""
    torch.set_num_threads(arguments.threads)
    for files in _files(arguments):
        _, test = files.subject.data(arguments.shared)
        for variant in OURS:
            gated = load_model(files.gated(variant))
            mirror = cgmq.Mirror(gated)
            target = files.path(variant)
            save_model(cgmq.write_back(gated, mirror.plan()), target)
            report = cgmq.inspect(target)
            record = files.record()
            record[variant] |= {
                "rbop": report.rbop,
                "weight_bytes": report.weight_bytes,
                "agreement": agreement(target, mirror, test),
            }
            files.write_record(record)
            print(files.subject.name, variant, record[variant], flush=True)


def _files(arguments: argparse.Namespace) -> list[Files]:
    """Those of the models that were asked for."""
    for folder in (RESULTS, arguments.files):
        folder.mkdir(parents=True, exist_ok=True)
    chosen = (s for s in SUBJECTS if s.name.startswith(arguments.only))
    return [Files(arguments.files, subject) for subject in chosen]


def rows(files: Files, shared: Path, reasons: list[str]) -> list[str]:
    """Lines of the table for one model; adds why nodes of ours are float to ``reasons``."""
    record = files.record()
    _, test = files.subject.data(shared)
    # The float model is what agreement is with, quantize_static what latency is compared to.
    paths = [files.path(variant) for variant in VARIANTS]
    few = {name: array[:AT_ONCE] for name, array in test.items()}
    timed: dict[int, Benchmark] = {
        threads: bench(paths, arrays, threads=threads, rounds=_LATENCY_ROUNDS)
        for threads, arrays in ((1, test), (2, few))
    }
    static = {
        threads: min(timed[threads].timings[1 : 1 + len(STATICS)], key=lambda timing: timing.ratio)
        for threads in timed
    }
    float_bytes, int8_bytes = (paths[index].stat().st_size for index in (0, 1))
    lines = []
    for index, (variant, path) in enumerate(zip(VARIANTS, paths, strict=True)):
        figures = {threads: timed[threads].timings[index] for threads in timed}
        nodes = () if variant == "float" else cgmq.inspect(path, kernels=True).nodes
        floats = [node for node in nodes if node.kernel is not Kernel.INTEGER]
        if variant in record and floats:
            reasons.extend(f"{files.path(variant).stem}: {n.name}: {n.reason}" for n in floats)
        own = record.get(variant, {})
        limit = ""
        if "weight_bytes" in own:
            limit = f"{1.05 * own['weight_bytes'] + 0.05 * float_bytes:,.0f}"
        agreed = own.get("agreement", {}).values()
        cells = [
            files.subject.name,
            variant,
            "" if figures[1].accuracy is None else f"{figures[1].accuracy:.2%}",
            "" if figures[1].same_class is None else f"{figures[1].same_class:.2%}",
            *(
                f"{own_time.milliseconds:.3f} ms, {_ratio(own_time, static[threads])}"
                for threads, own_time in figures.items()
            ),
            f"{path.stat().st_size:,}",
            limit,
            f"{int8_bytes / path.stat().st_size:.2f} x",
            f"{len(floats)} of {len(nodes)}" if nodes else "all",
            f"{own['rbop']:.3%}" if own else "",
            " / ".join(f"{kind['same_class']:.2%}" for kind in agreed),
            " / ".join(f"{kind['equal_codes']:.3%}" for kind in agreed),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ratio(timing: Timing, other: Timing) -> str:
    return f"{timing.ratio / other.ratio:.2f} x"


def table(arguments: argparse.Namespace) -> None:
    """Measures all files that are there, and writes the table."""
    reasons: list[str] = []
    lines = [line for files in _files(arguments) for line in rows(files, arguments.shared, reasons)]
    head = (
        "model",
        "variant",
        "accuracy",
        "same class as float",
        "1 thread, ratio to the fastest static",
        "2 threads, ratio to the fastest static",
        "file, bytes",
        "limit, bytes",
        "smaller than static",
        "float MAC nodes",
        "RBOP",
        "same class as mirror: optimized / not",
        "same codes: optimized / not",
    )
    text = [
        "# Deployment",
        "",
        "Made by `python -m tools.bench.deploy train`, `write` and `table`; do not edit.",
        "",
        f"onnxruntime {ort.__version__}, {platform.machine()}, {processor()}; batch 1; medians of "
        f"{_LATENCY_ROUNDS} interleaved rounds in one process for each model. `static`: "
        "onnxruntime's `quantize_static` (QDQ, INT8 weights per channel, its own pre-processing, "
        "the same calibration data), with its types of activations (INT8 is its default) and "
        "`reduce_range`. `8-bit` and `mixed` (2, 4 and 8 bits within 14 % of the float weights' "
        "size): ours, the default target, `--effort fast`, activations at 8 bits. Limit: "
        "1.05 x stored bits / 8 + 5 % of the float file. Float MAC nodes: in the graph that "
        "onnxruntime runs.",
        "",
        "Without VNNI, kernels for INT8 weights add pairs of products in saturating INT16: "
        "`quantize_static` without `reduce_range` is silently wrong there, which costs it "
        "accuracy. Ours leaves room for the largest pair of each channel (saturation.md).",
        "",
        "Same codes: of all codes that the quantizers of activations make in the file, over all "
        "test samples, the share that the mirror makes too.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *lines,
        "",
        "Why nodes of ours are float:" if reasons else "No MAC node of ours is float.",
        *(f"* {reason}" for reason in reasons),
        "",
    ]
    TABLE.write_text("\n".join(text), encoding="utf-8")
    print(TABLE)


def processor() -> str:
    """Whether this machine has the instructions that decide how fast INT8 is."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8") if info.exists() else ""
    return "with VNNI" if "vnni" in flags else "without VNNI"


def main() -> None:
    parser = argparse.ArgumentParser(description="Deployed models against onnxruntime's own INT8.")
    commands = parser.add_subparsers(required=True)
    for name, action in (("train", train), ("write", write), ("table", table)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        command.add_argument("--shared", type=Path, required=True)
        command.add_argument("--cache", type=Path, default=Path(".cache/models"))
        command.add_argument("--files", type=Path, default=Path("runs/deploy"))
        command.add_argument("--only", default="", help="Models whose name starts so.")
        command.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
