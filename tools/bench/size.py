"""Measures that large models work: time against the number of nodes, memory against the weights.

Every case runs in a process of its own, from a float model to a written file without training.
``nodes``: residual networks of 1,000, 5,000 and 20,000 nodes; processor time of every step.
``weights``: a chain of matrix products with 3 GiB of external data; peak resident memory of the
process after every step, less what it needed after its imports.

    python -m tools.bench.size --output docs/benchmarks/size.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import helper

import onnx_cgmq as cgmq
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.ort.capabilities import newest_opset
from onnx_cgmq.preparation.prepare import prepare

_NODES = (1_000, 5_000, 20_000)
_LARGE_MODEL = "large.onnx"
_CHANNELS = 4
_WIDTH = 2048  # of a layer of the large model: 16 MiB of weights
_GIB = 1 << 30
_FLOAT = onnx.TensorProto.FLOAT
_Made = TypeVar("_Made")


@dataclass
class Steps:
    """Processor seconds and peak memory of the steps of a run."""

    start: float = field(default_factory=lambda: _status("VmRSS"))
    seconds: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)

    def __call__(self, name: str, step: Callable[[], _Made]) -> _Made:
        """Runs a step."""
        began = time.process_time()
        made = step()
        self.seconds[name] = time.process_time() - began
        self.peak[name] = _status("VmHWM") - self.start
        return made

    def record(self) -> dict[str, Any]:
        """What was measured."""
        return {"seconds": self.seconds, "peak": self.peak}


def _status(key: str) -> float:
    """A field of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def residual_network(nodes: int) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, Conv, Add, over and over."""
    rng = np.random.default_rng(0)
    made: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        values = rng.uniform(0.5, 1.0, shape).astype(np.float32)
        tensors.append(onnx.numpy_helper.from_array(values, name))
        return name

    x, square = "image", (_CHANNELS, _CHANNELS, 3, 3)
    while len(made) < nodes - 2:
        b = f"block{len(made) // 5}"
        norm = [weight(f"{b}.{part}", _CHANNELS) for part in ("scale", "shift", "mean", "var")]
        first, second = weight(f"{b}.first.weight", *square), weight(f"{b}.second.weight", *square)
        bias = weight(f"{b}.second.bias", _CHANNELS)
        parts = (
            ("Conv", [x, first], "a"),
            ("BatchNormalization", [f"{b}.a", *norm], "n"),
            ("Relu", [f"{b}.n"], "r"),
            ("Conv", [f"{b}.r", second, bias], "c"),
            ("Add", [f"{b}.c", x], "y"),
        )
        for operator, read, result in parts:
            node = helper.make_node(operator, read, [f"{b}.{result}"], f"{b}/{result}")
            if operator == "Conv":
                node.attribute.append(helper.make_attribute("pads", [1] * 4))
            made.append(node)
        x = f"{b}.y"
    made.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], "pool"))
    made.append(helper.make_node("Flatten", ["pooled"], ["logits"], "flatten"))
    image = helper.make_tensor_value_info("image", _FLOAT, ["batch", _CHANNELS, 4, 4])
    logits = helper.make_tensor_value_info("logits", _FLOAT, ["batch", _CHANNELS])
    graph = helper.make_graph(made, "residual", [image], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def large_model(path: Path, weight_bytes: int) -> None:
    """Writes a chain of MatMul, Add, Relu with its weights in external data."""
    layers = weight_bytes // (4 * _WIDTH * _WIDTH)
    rng = np.random.default_rng(0)
    values: list[ir.Value] = []
    nodes: list[ir.Node] = []
    shape = ir.Shape(["batch", _WIDTH])
    x = image = ir.Value(name="image", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    data = path.with_suffix(".data")
    with data.open("wb") as file:
        for layer in range(layers):
            parts = {"weight": (_WIDTH, _WIDTH), "bias": (_WIDTH,)}
            for part, size in parts.items():
                offset = file.tell()
                block = rng.standard_normal(size, dtype=np.float32)
                file.write((block / _WIDTH**0.5).astype(np.float32).data)
                tensor = ir.ExternalTensor(
                    data.name,
                    offset,
                    file.tell() - offset,
                    ir.DataType.FLOAT,
                    shape=ir.Shape(size),
                    name=f"layer{layer}.{part}",
                )
                values.append(ir.Value(name=tensor.name, const_value=tensor))
            product = ir.node("MatMul", [x, values[-2]])
            shifted = ir.node("Add", [product.outputs[0], values[-1]])
            relu = ir.node("Relu", [shifted.outputs[0]])
            nodes += [product, shifted, relu]
            x = relu.outputs[0]
    x.name, x.type, x.shape = "logits", image.type, shape
    opset = {"": newest_opset()}
    graph = ir.Graph(
        [image], [x], nodes=nodes, initializers=values, opset_imports=opset, name="large"
    )
    ir.passes.common.NameFixPass()(model := ir.Model(graph, ir_version=10))
    onnx.save(ir.to_proto(model), path)


def measure_nodes(count: int, folder: Path) -> dict[str, Any]:
    """All steps on a residual network."""
    proto = residual_network(count)
    return _whole_line(proto, folder, bits=8) | {"nodes": len(proto.graph.node)}


def measure_weights(bits: int, folder: Path) -> dict[str, Any]:
    """All steps on the large model, written with ``bits`` for every tensor."""
    path = folder / _LARGE_MODEL
    weight_bytes = path.with_suffix(".data").stat().st_size
    return _whole_line(path, folder, bits) | {"weight_bytes": weight_bytes}


def _whole_line(model: Any, folder: Path, bits: int) -> dict[str, Any]:
    steps = Steps()
    prepared = steps("prepare", lambda: prepare(model))
    gated = steps("insert gates", lambda: cgmq.insert_gates(prepared, target="generic"))
    mirror = steps("mirror", lambda: cgmq.Mirror(gated))
    for quantizer in mirror.quantizers.values():
        quantizer.set_gate(quantizer.gate_for(np.full(quantizer.spec.gate_shape, bits)))
    plan = steps("plan", mirror.plan)
    written = steps("write back", lambda: cgmq.write_back(gated, plan))
    target = folder / "written.onnx"
    steps("save", lambda: save_model(written, target))
    files = list(folder.glob("written.*"))
    file_bytes = sum(file.stat().st_size for file in files)
    for file in files:
        file.unlink()
    return steps.record() | {"bits": bits, "file_bytes": file_bytes}


def run_case(kind: str, size: int, folder: Path) -> dict[str, Any]:
    """Runs a case in a process of its own."""
    command = [sys.executable, "-m", "tools.bench.size", "--folder", str(folder)]
    command += ["--case", kind, str(size)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    record: dict[str, Any] = json.loads(finished.stdout)
    return record


def report(nodes: list[dict[str, Any]], weights: list[dict[str, Any]]) -> str:
    """The tables, in Markdown."""
    counts = [f"{run['nodes']:,} nodes" for run in nodes]
    lines = [
        "# Size",
        "",
        "Without training, each run in a process of its own with one thread.",
        "",
        "## Nodes",
        "",
        "Residual networks of convolutions (opset 18, BatchNormalization to be folded), written",
        "with 8 bits for every tensor. Milliseconds of processor time for each node:",
        "",
        f"| step | {' | '.join(counts)} |",
        "|---|" + "---|" * len(nodes),
    ]
    for step in (*nodes[0]["seconds"], "all"):
        cells = []
        for run in nodes:
            seconds = run["seconds"]
            total = sum(seconds.values()) if step == "all" else seconds[step]
            cells.append(f"{1e3 * total / run['nodes']:.2f}")
        lines.append(f"| {step} | {' | '.join(cells)} |")
    size = weights[0]["weight_bytes"]
    lines += [
        "",
        "## Weights",
        "",
        f"A chain of {size // (4 * _WIDTH * _WIDTH)} products with {_WIDTH} x {_WIDTH} matrices,",
        f"{size / _GIB:.2f} GiB of float32 weights in external data. The figures are the peak of",
        "resident memory up to and including a step, less what the process had after its imports,",
        "as a multiple of the weights. The mirror has every weight once, and is kept to the end.",
        "",
        f"| step | {' | '.join(_written_as(run) for run in weights)} |",
        "|---|" + "---|" * len(weights),
    ]
    for step in weights[0]["peak"]:
        cells = [f"{run['peak'][step] / size:.2f}" for run in weights]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Made by `python -m tools.bench.size --output FILE`.", ""])


def _written_as(run: dict[str, Any]) -> str:
    return f"written with {run['bits']} bits ({run['file_bytes'] / _GIB:.2f} GiB)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gib", type=float, default=3.0, help="weights of the large model")
    parser.add_argument("--folder", type=Path, help="for the files (a temporary one)")
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        torch.set_num_threads(1)
        kind, size = options.case
        run = measure_nodes if kind == "nodes" else measure_weights
        print(json.dumps(run(int(size), options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        nodes = [run_case("nodes", count, folder) for count in _NODES]
        large_model(folder / _LARGE_MODEL, int(options.gib * _GIB))
        weights = [run_case("weights", bits, folder) for bits in (32, 8)]
    text = report(nodes, weights)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
