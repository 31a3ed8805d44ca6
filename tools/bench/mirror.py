"""Times the mirror of a ResNet-20 against the same network as plain torch modules.

Forward and backward of a batch of 128 float images, in interleaved rounds, so that other work on
the machine hits all alike; the figure is the median of the rounds' ratios. Memory is the peak of
the resident memory of a process of its own, above what it had before its first step.

    python -m tools.bench.mirror resnet20.onnx --output docs/benchmarks/mirror.md
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

import onnx_cgmq as cgmq

_BATCH = 128
_STEPS_FOR_MEMORY = 3
_VARIANTS = ("mirror", "modules", "modules, channels_last")


class Block(nn.Module):
    """Two convolutions beside a shortcut that drops pixels and adds empty channels."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.added = (channels - channels_in) // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Runs the block."""
        y = self.conv2(functional.relu(self.conv1(x)))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, self.added, self.added))
        return functional.relu(y + x)


class ResNet20(nn.Module):
    """ResNet-20 for 32 x 32 images, its normalization folded into the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores of images."""
        x = functional.relu(self.conv1(image))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: Tensor = self.linear(functional.avg_pool2d(x, 8).flatten(1))
        return scores


def modules_of(path: Path) -> ResNet20:
    """The network as modules, with the weights of the file."""
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    network = ResNet20()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            folded = name.replace(".bias", ".weight_bias")
            parameter.copy_(torch.tensor(tensors[name if name in tensors else folded]))
    return network


class Trained:
    """One of the variants, and its step."""

    def __init__(self, variant: str, path: Path) -> None:
        self.network: nn.Module = cgmq.Mirror(path) if variant == "mirror" else modules_of(path)
        self.image = torch.randn(_BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.label = torch.arange(_BATCH) % 10
        if "channels_last" in variant:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.image = self.image.contiguous(memory_format=torch.channels_last)

    def step(self) -> float:
        """Forward and backward; returns the loss."""
        self.network.zero_grad()
        outputs = self.network(self.image)
        scores = outputs["logits"] if isinstance(outputs, dict) else outputs
        loss = functional.cross_entropy(scores, self.label)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def gradient_norm(self) -> float:
        """Norm of the gradient of all weights after a step."""
        grads = [p.grad.flatten() for p in self.network.parameters() if p.grad is not None]
        return float(torch.cat(grads).norm())


def seconds(path: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, interleaved."""
    trained = {variant: Trained(variant, path) for variant in _VARIANTS}
    losses = {variant: one.step() for variant, one in trained.items()}
    norms = {variant: one.gradient_norm() for variant, one in trained.items()}
    for found in (losses, norms):
        assert max(found.values()) - min(found.values()) < 1e-3 * max(found.values()), found
    taken: dict[str, list[float]] = {variant: [] for variant in _VARIANTS}
    for _ in range(rounds):
        for variant, one in trained.items():
            start = time.perf_counter()
            one.step()
            taken[variant].append(time.perf_counter() - start)
    return taken


def peak_bytes(variant: str, path: Path) -> int:
    """Peak resident memory of some steps above what the process had before them."""
    trained = Trained(variant, path)
    before = _peak()
    for _ in range(_STEPS_FOR_MEMORY):
        trained.step()
    return _peak() - before


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory(path: Path, threads: int) -> dict[str, int]:
    """Peak memory of every variant, each in a process of its own."""
    found = {}
    for variant in _VARIANTS:
        command = [sys.executable, "-m", "tools.bench.mirror", str(path), "--threads", str(threads)]
        command += ["--memory-of", variant]
        finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found[variant] = int(json.loads(finished.stdout))
    return found


def report(
    taken: dict[str, list[float]], peaks: dict[str, int], options: argparse.Namespace
) -> str:
    """The table, in Markdown."""
    lines = [
        "# The mirror against plain torch modules",
        "",
        f"ResNet-20 ({options.model.name}), float32, forward and backward of {_BATCH} images;",
        f"{options.rounds} interleaved rounds, {options.threads} thread(s), PyTorch",
        f"{torch.__version__}. Loss and gradients agree. Ratios: the mirror's time over the time",
        "of the modules, median over rounds; the mirror's peak memory over that of the modules.",
        "",
        "| | ms (median) | mirror's time / its | peak, MiB | mirror's peak / its |",
        "|---|---|---|---|---|",
    ]
    for variant in _VARIANTS:
        pairs = zip(taken["mirror"], taken[variant], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        milliseconds = 1e3 * statistics.median(taken[variant])
        lines.append(
            f"| {variant} | {milliseconds:.0f} | {ratio:.2f} | {peaks[variant] / 2**20:.0f} "
            f"| {peaks['mirror'] / peaks[variant]:.2f} |"
        )
    lines += ["", "Made by `python -m tools.bench.mirror MODEL --output FILE`.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="ResNet-20 for CIFAR-10 as an ONNX file")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak_bytes(options.memory_of, options.model))
        return
    peaks = memory(options.model, options.threads)
    text = report(seconds(options.model, options.rounds), peaks, options)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
