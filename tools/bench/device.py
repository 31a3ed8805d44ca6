"""A device at work: runs on LeNet-5, ResNet-20 and EfficientNet-lite0, within five minutes.

    python -m tools.bench.device --shared SHARED --device cuda --output docs/benchmarks/device.md

SHARED holds ``data/cifar10_jpeg.zip``, ``data/imagenet_1k_sample.zip`` and
``models/resnet20_cifar10.onnx``. Without it, only LeNet-5 runs. EfficientNet-lite0 is exported from
its PyPI packages once, into ``--cache``.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import onnx_cgmq as cgmq
from onnx_cgmq.contract.events import EpochDone, StageDone
from onnx_cgmq.mirror.devices import chosen_device
from tools.fetch.deploy_models import SUBJECTS, Arrays

EXAMPLE = Path("examples/mnist")
SECONDS = {"lenet5": 40, "resnet20": 90, "efficientnet-lite0": 120}
"""The most that each run may learn, so that all of them take less than five minutes."""


@dataclass(frozen=True)
class Job:
    """A model with samples to learn from."""

    name: str
    model: Path
    data: Arrays
    batch_size: int


def jobs(shared: Path | None, cache: Path) -> Iterator[Job]:
    """The models of the benchmark, as far as they can be had."""
    with np.load(EXAMPLE / "train.npz") as arrays:
        yield Job("lenet5", EXAMPLE / "lenet5.onnx", dict(arrays), 128)
    if shared is None:
        return
    for subject in SUBJECTS:
        if subject.name in SECONDS:
            data, _ = subject.data(shared)
            yield Job(subject.name, subject.model(cache, shared), data, subject.batch_size)


def row(job: Job, device: str) -> str:
    """Learns for one epoch after the stages; what that took and gave, as a line of the table."""
    began = time.perf_counter()
    result = cgmq.quantize(
        job.model,
        job.data,
        "3%",
        effort="fast",
        epochs=1,
        batch_size=job.batch_size,
        time_limit=SECONDS[job.name],
        device=device,
    )
    whole = time.perf_counter() - began
    stages = {event.stage: event.seconds for event in result.events if isinstance(event, StageDone)}
    epochs = [event.seconds for event in result.events if isinstance(event, EpochDone)]
    epoch = epochs[0] if epochs else None
    times = [stages.get("calibrated"), stages.get("reconstructed"), epoch]
    shown = ["-" if seconds is None else f"{seconds:.1f}" for seconds in times]
    agreement = f"{result.check.agreement_db:.0f}"
    return (
        f"| {job.name} | {len(next(iter(job.data.values())))} | {' | '.join(shown)} | {whole:.1f} "
        f"| {100 * result.cost.rbop:.2f} | {result.outcome.validation_loss:.4f} | {agreement} |"
    )


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.processor() or platform.machine()}, {device.type}, {threads} thread(s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--shared", type=Path, help="without it, only LeNet-5 runs")
    parser.add_argument("--cache", type=Path, default=Path(".cache/models"))
    parser.add_argument("--only", default="", help="models whose name starts so")
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    options = parser.parse_args()
    device = chosen_device(options.device)
    lines = [
        "# Runs on a device",
        "",
        f"{device_name(device)}; PyTorch {torch.__version__}. Bound 3 % of the bit operations,",
        "effort `fast`, then one epoch; seconds. The agreement is that of the written file in",
        "onnxruntime, on the CPU, with the mirror on the device.",
        "",
        "| model | samples | allocate | reconstruct | epoch | whole run | cost, % | loss "
        "| agreement, dB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for job in jobs(options.shared, options.cache):
        if job.name.startswith(options.only):
            lines.append(row(job, options.device))
            print(lines[-1], flush=True)
    lines += ["", "Made by `python -m tools.bench.device --shared SHARED --output FILE`.", ""]
    if options.output is not None:
        options.output.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
