"""Times weights that onnxruntime multiplies packed, beside float products, in interleaved rounds.

A MatMul of a square weight is written by the target ``ort-weights`` at each width, with ranges for
channels and for blocks, and timed with few rows and many. The small transformer encoder of the
deployment benchmark is quantized under a bound on its size, and timed as well.

    python -m tools.bench.weights encoder.onnx --output docs/benchmarks/weights.md
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import helper, numpy_helper

import onnx_cgmq as cgmq
from onnx_cgmq.data.source import open_data
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.learn.calibrate import calibrate
from tools import ROOT
from tools.bench.deploy import processor
from tools.fetch.deploy_models import rows_of_digits

_TARGET: Final = "ort-weights"
_SIZES: Final = (1024, 3072)
_ROWS: Final = (1, 16, 128)
_WIDTHS: Final = (8, 4, 2)
_CHANNEL: Final[Mapping[str, Any]] = {"weight_ranges": "channel"}
_BLOCKS: Final = {
    f"block {size}": {"weight_ranges": "block", "block_size": size} for size in (32, 128)
}
_RANGES: Final[Mapping[str, Mapping[str, Any]]] = {"channel": _CHANNEL, **_BLOCKS}
_OF_THE_ENCODER: Final = ("channel", "block 32")
_BOUND: Final = "size:15%"
_SAMPLES: Final = 300
"""Training samples of the encoder, as users without a data set have them."""

_BATCHES: Final = (1, 32)

_PAGE: Final = """\
# Weights alone

How fast and how large are files of the target [`ort-weights`](../targets.md)? onnxruntime
{version} multiplies their weights packed (`MatMulNBits`, which rounds activations to 8 bits in
blocks). Here it had one thread on a processor {processor}.

```sh
python -m tools.bench.weights encoder.onnx --output docs/benchmarks/weights.md
```

## One product

A MatMul of a float activation and a square weight, standard normal numbers. Time is a share of
the float product's time in the same round, median over {rounds} interleaved rounds in one process.
What is slower than float is bold. *Memory* is the peak of loading and running with 1 row, as a
share of the float model's.

{products}

## A small encoder

Two layers of 64 channels, which read 28 rows for each sample, learned with `--bound {bound}
--effort fast` on {samples} unlabelled samples. *Agreement* is that of the written file with the
float model on held-out samples. *Rounding* is that of the file with onnxruntime's optimizations
and without, so it is what the rounding of activations does. Times are shares of the float model's.

{encoder}
"""


def products(folder: Path, rounds: int) -> Iterator[tuple[Any, ...]]:
    """The rows of the first table."""
    for size in _SIZES:
        paths = [folder / f"float{size}.onnx"]
        onnx.save(_product(size), paths[0])
        labels = []
        for width in _WIDTHS:
            for ranges, settings in _RANGES.items():
                labels.append(f"INT{width}, {ranges}")
                paths.append(folder / f"{size} {labels[-1]}.onnx")
                save_model(_quantized(size, width, settings), paths[-1])
        found = [cgmq.bench(paths, batch=rows, rounds=rounds).timings for rows in _ROWS]
        for index, label in enumerate(labels, start=1):
            ratios = [_share(timings[index].ratio) for timings in found]
            first, own = found[0][0], found[0][index]
            memory = (own.peak_bytes or 0) / (first.peak_bytes or 1)
            share = own.file_bytes / first.file_bytes
            yield (f"{size}", label, *ratios, f"{share:.3f}", f"{memory:.2f}")


def _product(size: int) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", size])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", size])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _quantized(size: int, width: int, settings: Mapping[str, Any]) -> ir.Model:
    """The product at one width; onnxruntime must multiply it packed."""
    gated = cgmq.insert_gates(_product(size), target=_TARGET, widths=(width,), **settings)
    mirror = cgmq.Mirror(gated)
    rows = np.random.default_rng(1).standard_normal((4, size), dtype=np.float32)
    calibrate(mirror, open_data({"x": rows}, gated))
    written = cgmq.write_back(gated, mirror.plan(), weight_kernels=True)
    (node,) = cgmq.inspect(written, kernels=True).nodes
    assert node.kernel is Kernel.PACKED, node
    return written


def encoder(model: Path, folder: Path, rounds: int) -> Iterator[tuple[Any, ...]]:
    """The rows of the second table."""
    train, _ = rows_of_digits(ROOT)
    data = {"rows": train["rows"][:_SAMPLES]}
    paths, results = [model], []
    for ranges in _OF_THE_ENCODER:
        paths.append(folder / f"encoder {ranges}.onnx")
        settings = {"target": _TARGET, "effort": "fast", **_RANGES[ranges]}
        results.append(cgmq.quantize(model, data, _BOUND, output=paths[-1], **settings))
    found = [cgmq.bench(paths, data, batch=batch, rounds=rounds).timings for batch in _BATCHES]
    for index, (ranges, result) in enumerate(zip(_OF_THE_ENCODER, results, strict=True), start=1):
        packed = sum(node.kernel is Kernel.PACKED for node in result.report.nodes)
        assert result.float_agreement is not None
        (output,) = result.float_agreement.outputs.values()
        rounding = result.check.optimization_db
        yield (
            ranges,
            f"{found[0][index].file_bytes:,} of {found[0][0].file_bytes:,}",
            f"{result.report.weight_bytes:,}",
            f"{packed} of {len(result.report.nodes)}",
            f"{output.snr_db:.1f} dB",
            f"{rounding:.1f} dB",
            *(_share(timings[index].ratio) for timings in found),
        )


def _share(ratio: float) -> str:
    text = f"{ratio:.2f}"
    return f"**{text}**" if ratio >= 1 else text


def table(head: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> str:
    """A table in Markdown; each row is shown as soon as it is there."""
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        lines.append(_line(row))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="the encoder of tools.fetch.deploy_models")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, help="Markdown file; printed only, without")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = tuple(f"{count} row{'s' if count > 1 else ''}" for count in _ROWS)
    head = ("K = N", "weight, ranges", *rows, "file", "memory")
    encoders = ("ranges", "file, bytes", "weights", "packed nodes", "agreement", "rounding")
    times = tuple(f"time, batch {batch}" for batch in _BATCHES)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        text = _PAGE.format(
            version=cgmq.bench([options.model], rounds=1).onnxruntime,
            processor=processor(),
            rounds=options.rounds,
            bound=_BOUND,
            samples=_SAMPLES,
            products=table(head, products(folder, options.rounds)),
            encoder=table((*encoders, *times), encoder(options.model, folder, options.rounds)),
        )
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
