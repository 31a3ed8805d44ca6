"""Times the gated quantizer against the residual form of Bayesian Bits, forward and backward.

Both quantize the same tensor with a learned range and gates; the residual form (arXiv 2005.07093,
x_2 + e_4 + e_8 + e_16 + e_32) is written plainly in autograd. Ours runs as in training: with the
statistics that move the gates. Rounds of the two are interleaved, so that other work on the machine
hits both; the figure is the median.

    python -m tools.bench.quantizer --output docs/benchmarks/quantizer.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.learn.directions import wanted_statistics
from onnx_cgmq.learn.malloc import freed_memory_kept
from onnx_cgmq.learn.statistics import RunningStatistics
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.settings.config import Direction

Step = Callable[[], None]


class ResidualQuantizer(nn.Module):
    """The five-level residual form: every level is rounded, gated and differentiated."""

    def __init__(self, high: float, gate_shape: tuple[int, ...]) -> None:
        """Starts with every gate open, as training does."""
        super().__init__()
        self.high = nn.Parameter(torch.tensor(high))
        self.gates = nn.ParameterList([torch.ones(gate_shape) for _ in range(5)])

    def forward(self, x: Tensor) -> Tensor:
        """Quantizes a tensor of any shape."""
        clipped = torch.minimum(torch.maximum(x, -self.high), self.high)
        step = 2 * self.high / 3
        level = _round(clipped / step) * step
        residuals, total = [level], level
        for bits in (4, 8, 16):
            step = step / (2 ** (bits // 2) + 1)
            level = _round((clipped - total) / step) * step
            residuals.append(level)
            total = total + level
        residuals.append(clipped - total)
        result = torch.zeros(())
        for gate, level in zip(reversed(self.gates), reversed(residuals), strict=True):
            result = gate * (level + result)
        return result


class _Round(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Rounds half to even."""
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Passes the gradient on."""
        return gradients[0]


def _round(x: Tensor) -> Tensor:
    result: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True)
class Times:
    """Median seconds of one forward and backward pass."""

    granularity: Granularity
    width: int
    ours: float
    residual: float


def compare(granularity: Granularity, width: int, count: int, rounds: int) -> Times:
    """Times both on ``count`` normal numbers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, generator=generator).requires_grad_()
    gradient = torch.randn(count, generator=generator)
    spec = QuantizerSpec(
        tensor="x",
        role=Role.WEIGHT,
        form=GridForm.SYMMETRIC,
        granularity=granularity,
        ladder=Ladder(),
        shape=(count,),
    )
    gate = torch.full(spec.gate_shape, spec.ladder.gate_of(width))
    ours = GatedQuantizer(spec, None, torch.full(spec.range_shape, 3.0), gate)
    ours.observer = RunningStatistics(spec, wanted_statistics(Direction.FISHER, prunes=False))
    residual = ResidualQuantizer(3.0, spec.gate_shape)

    def run_ours() -> None:
        ours(x)[0].backward(gradient)

    def run_residual() -> None:
        residual(x).backward(gradient)

    seconds: dict[Step, list[float]] = {run_ours: [], run_residual: []}
    for round_number in range(rounds + 1):
        for run, taken in seconds.items():
            x.grad = None
            for module in (ours, residual):
                module.zero_grad()
            start = time.perf_counter()
            run()
            if round_number:  # the first only warms up
                taken.append(time.perf_counter() - start)
    ours_median, residual_median = map(statistics.median, seconds.values())
    return Times(granularity, width, ours_median, residual_median)


def report(rows: list[Times], options: argparse.Namespace) -> str:
    """The table, in Markdown."""
    lines = [
        "# The gated quantizer against the residual form",
        "",
        f"Forward and backward on {options.elements:,} float32 elements, medians of interleaved",
        f"rounds ({options.rounds}); {options.threads} thread(s), PyTorch {torch.__version__}.",
        "",
        "The residual form of Bayesian Bits (x_2 + e_4 + e_8 + e_16 + e_32) rounds, gates and",
        "differentiates five levels; its time does not depend on the widths selected. The gated",
        "quantizer rounds once, at the selected width; its time includes the statistics that move",
        "the gates. As in training, freed memory stays in the process; without that, temporary",
        "tensors are paid for in page faults, and the residual form, which has more of them, falls",
        "further behind.",
        "",
        "| gates | width | gated quantizer, ms | residual form, ms | ratio |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.granularity.value} | {row.width} | {1e3 * row.ours:.0f} "
        f"| {1e3 * row.residual:.0f} | {row.residual / row.ours:.1f} |"
        for row in rows
    ]
    lines += ["", "Made by `python -m tools.bench.quantizer --output FILE`.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with freed_memory_kept():
        rows = [
            compare(granularity, width, options.elements, options.rounds)
            for granularity in (Granularity.TENSOR, Granularity.ELEMENT)
            for width in (2, 4, 8)
        ]
    text = report(rows, options)
    print(text)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
