"""Measures the peak memory of runs over data that is larger than memory should have to be.

A generator yields batches of images, 400 MB and 4 GB of them in all. ``quantize`` learns from them
with ``effort="fast"``, each time in a process of its own. The images are random blots: this is
about memory, not accuracy.

    python -m tools.bench.streams --output docs/benchmarks/streams.md
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

import onnx_cgmq as cgmq

_SIZES: Final = (400, 4000)
"""Megabytes of data."""

_LIMIT: Final = 1.3
"""How much more memory the largest data may take than the smallest."""

_SIDE: Final = 512  # of an image, which so has 3 MiB
_BATCH: Final = 8
_CLASSES: Final = 10
_FLOAT: Final = onnx.TensorProto.FLOAT


class Run(NamedTuple):
    """A run over data of one size.

    Attributes:
        megabytes: Size of the data.
        start: Memory after the imports, in bytes.
        peak: The most memory of the process, in bytes.
        seconds: Processor time of the run.
    """

    megabytes: int
    start: int
    peak: int
    seconds: float


def blots(megabytes: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yields batches of images, each made when it is asked for."""
    rng = np.random.default_rng(0)
    for _ in range(max(1, round(megabytes * 1e6 / (_BATCH * 3 * _SIDE * _SIDE * 4)))):
        coarse = rng.standard_normal((_BATCH, 3, _SIDE // 16, _SIDE // 16), dtype=np.float32)
        yield coarse.repeat(16, axis=2).repeat(16, axis=3)


def network() -> onnx.ModelProto:
    """Convolutions whose images are far larger than what is computed of them."""
    rng = np.random.default_rng(0)
    nodes, tensors, x, channels = [], [], "image", 3
    for index, (wide, stride) in enumerate(((8, 16), (16, 2))):
        weight = rng.standard_normal((wide, channels, stride + 1, stride + 1), dtype=np.float32)
        weight *= (2 / weight[0].size) ** 0.5
        tensors.append(onnx.numpy_helper.from_array(weight, f"w{index}"))
        nodes += [
            helper.make_node("Conv", [x, f"w{index}"], [f"c{index}"], strides=[stride, stride]),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        x, channels = f"r{index}", wide
    head = rng.standard_normal((channels, _CLASSES), dtype=np.float32)
    tensors.append(onnx.numpy_helper.from_array(head, "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "head"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", _FLOAT, ["batch", 3, _SIDE, _SIDE])
    logits = helper.make_tensor_value_info("logits", _FLOAT, ["batch", _CLASSES])
    graph = helper.make_graph(nodes, "blots", [image], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def measure(megabytes: int) -> Run:
    """Runs in this process, which must be new: its peak of memory never falls."""
    start, began = _peak(), time.process_time()
    cgmq.quantize(network(), blots(megabytes), "3%", effort="fast")
    return Run(megabytes, start, _peak(), time.process_time() - began)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def report(runs: list[Run]) -> str:
    """The table, in Markdown.

    Args:
        runs: The smallest data first.
    """
    lines = [
        "# Memory of large data",
        "",
        '`quantize` with `effort="fast"` over batches that are made as they are asked for, each',
        f"run in a process of its own. An image has {3 * _SIDE * _SIDE * 4 / 1e6:.1f} MB, a batch "
        f"{_BATCH} images. *peak* is the largest",
        "resident memory of the process (`ru_maxrss`); *ratio* compares it with that of the first",
        f"run, and should stay below {_LIMIT}. Seconds are of the processor.",
        "",
        "| data | after the imports | peak | ratio | seconds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {run.megabytes:,} MB | {run.start / 1e6:,.0f} MB | {run.peak / 1e6:,.0f} MB "
        f"| {run.peak / runs[0].peak:.2f} | {run.seconds:.0f} |"
        for run in runs
    ]
    return "\n".join([*lines, "", "Made by `python -m tools.bench.streams --output FILE`.", ""])


def _in_own_process(megabytes: int) -> Run:
    command = [sys.executable, "-m", "tools.bench.streams", "--case", str(megabytes)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    run = Run(*json.loads(finished.stdout))
    print(f"{megabytes} MB: peak {run.peak / 1e6:,.0f} MB", file=sys.stderr)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=_SIZES)
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case)))
        return
    runs = [_in_own_process(size) for size in options.megabytes]
    text = report(runs)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    if any(run.peak > _LIMIT * runs[0].peak for run in runs):
        sys.exit(f"the memory grows with the data, by more than {_LIMIT} times")


if __name__ == "__main__":
    main()
