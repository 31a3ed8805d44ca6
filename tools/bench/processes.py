"""One process against several with ``torchrun``: time of an epoch, loss and plan.

    python -m tools.bench.processes --output docs/benchmarks/processes.md
    python -m tools.bench.processes --model MODEL.onnx --data DATA.npz --processes 4

Each has one thread, and all share the batches of one. Needs a machine with nothing else to do and
at least as many cores as processes; without arguments it takes LeNet-5 and the digits of
``examples/mnist``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.contract.run_paths import plan_path

EXAMPLE = Path("examples/mnist")


@dataclass(frozen=True)
class Found:
    """What a run took and gave."""

    epochs: list[float]
    loss: float
    plan: BitPlan


def found(processes: int, options: argparse.Namespace, folder: Path) -> Found:
    """Runs the command line in so many processes."""
    output, log = folder / f"{processes}.onnx", folder / f"{processes}.jsonl"
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes)]
    command += ["-m", "onnx_cgmq", "--", "quantize", str(options.model)]
    command += ["--data", str(options.data)]
    command += ["--bound", options.bound, "--effort", "fast", "--epochs", str(options.epochs)]
    command += ["--batch-size", str(options.batch_size), "-o", str(output), "--log", str(log), "-q"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    events = [json.loads(line) for line in log.read_text().splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    return Found(
        [event["seconds"] for event in epochs],
        epochs[-1]["validation_loss"],
        BitPlan.load(plan_path(output)),
    )


_CONVOLUTIONS = """
import time, torch
torch.set_num_threads(1)
x, weight = torch.randn(64, 32, 32, 32), torch.randn(32, 32, 3, 3)
for number in range(110):
    if number == 10:
        began = time.perf_counter()
    torch.conv2d(x, weight, padding=1)
print(time.perf_counter() - began)
"""


def least_share(processes: int) -> float:
    """The share of time that is left if processes do the work of one, and exchange nothing.

    Cores that share what they compute with, as those of virtual machines may, leave more than one
    by the number of processes.
    """

    def seconds(count: int) -> float:
        command = [sys.executable, "-c", _CONVOLUTIONS]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        return max(float(process.communicate()[0]) for process in started)

    alone = seconds(1)
    return seconds(processes) / processes / alone


def same_widths(one: BitPlan, other: BitPlan) -> bool:
    """Whether two plans have the same widths everywhere."""
    pairs = ((tensor, other.tensors[name]) for name, tensor in one.tensors.items())
    return all(np.array_equal(tensor.widths, its.widths) for tensor, its in pairs)


def range_difference(one: BitPlan, other: BitPlan) -> float:
    """The largest difference of ends of ranges, relative to the largest of the tensor."""
    return max(
        float(np.abs(tensor.high - other.tensors[name].high).max() / np.abs(tensor.high).max())
        for name, tensor in one.tensors.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=EXAMPLE / "lenet5.onnx")
    parser.add_argument("--data", type=Path, default=EXAMPLE / "train.npz")
    parser.add_argument("--bound", default="1%")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, several = (found(n, options, Path(folder)) for n in (1, options.processes))
    least = least_share(options.processes)
    seconds = [statistics.median(run.epochs) for run in (one, several)]
    text = f"""# Several processes

{options.model.name}, batches of {options.batch_size}, bound {options.bound}; each process has one
thread. {os.cpu_count()} cores, PyTorch {torch.__version__}.

| processes | seconds of an epoch | share | loss |
|---|---|---|---|
| 1 | {seconds[0]:.2f} | 1.00 | {one.loss:.6f} |
| {options.processes} | {seconds[1]:.2f} | {seconds[1] / seconds[0]:.2f} | {several.loss:.6f} |

The least share that this machine allows: {least:.2f}. So long do convolutions take that are
divided among {options.processes} processes, which exchange nothing.

Widths are the same: {"yes" if same_widths(one.plan, several.plan) else "no"}. Ends of ranges differ
by {100 * range_difference(one.plan, several.plan):.2g} % at most.

Made by `python -m tools.bench.processes --output FILE`.
"""
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
