"""Whether ``torch.compile`` pays: training steps of gated mirrors, compiled and as they are.

    python -m tools.bench.compile MODEL.onnx [MODEL.onnx ...] --output docs/benchmarks/compile.md

All gates are at 4 bits. Times are of the processor, not of the clock, in interleaved rounds with
one thread, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onnx_cgmq.data import open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config

_SAMPLES, _STEPS, _WIDTH = 64, 5, 4

Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def mirror_of(path: Path) -> tuple[Mirror, dict[str, Tensor]]:
    """The calibrated mirror of a file with one input, and a batch of noise."""
    model = prepare(path)
    mirror = Mirror(insert_gates(model, Config()))
    (name,) = mirror.input_names
    shape = [size for size in model.graph.inputs[0].shape or () if isinstance(size, int)]
    array = np.random.default_rng(0).normal(size=(_SAMPLES, *shape[-3:])).astype(np.float32)
    calibrate(mirror, open_data({name: array}, model))
    for quantizer in mirror.quantizers.values():
        if _WIDTH in quantizer.spec.ladder.widths:
            quantizer.set_gate(quantizer.gate_for(np.full(quantizer.spec.gate_shape, _WIDTH)))
    for value, parameter in mirror.value_parameters.items():
        parameter.requires_grad_(value in mirror.quantizers)
    return mirror.train(), {name: torch.from_numpy(array)}


def seconds(run: Run, mirror: Mirror, inputs: dict[str, Tensor]) -> float:
    """Seconds of the processor for a step: forward and backward."""
    began = time.process_time()
    for _ in range(_STEPS):
        mirror.zero_grad()
        loss = torch.stack([output.square().mean() for output in run(inputs).values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    return (time.process_time() - began) / _STEPS


def row(path: Path, rounds: int) -> str:
    """A line of the table."""
    mirror, inputs = mirror_of(path)
    compiled = torch.compile(mirror, fullgraph=True)
    first = seconds(compiled, mirror, inputs) * _STEPS
    plain, fast = [], []
    for _ in range(rounds):
        plain.append(seconds(mirror, mirror, inputs))
        fast.append(seconds(compiled, mirror, inputs))
    ratio = statistics.median(f / p for p, f in zip(plain, fast, strict=True))
    times = (1e3 * statistics.median(found) for found in (plain, fast))
    shown = " | ".join(f"{found:.0f}" for found in times)
    return f"| {path.stem} | {shown} | {ratio:.2f} | {first:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# torch.compile",
        "",
        f"Training steps on {_SAMPLES} samples, gates at {_WIDTH} bits, one thread, on the CPU",
        f"({platform.machine()}), PyTorch {torch.__version__}; milliseconds of the processor,",
        f"medians of {options.rounds} interleaved rounds. The first step compiles (without the",
        "compilers that it starts).",
        "",
        "| model | as it is | compiled | ratio | first steps, s |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for path in options.models:
        lines.append(row(path, options.rounds))
        print(lines[-1], flush=True)
    lines += ["", "Made by `python -m tools.bench.compile MODEL.onnx ... --output FILE`.", ""]
    if options.output is not None:
        options.output.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
