"""Times the first convolution of images with and without a channel of zeros more.

    python -m tools.measure.image_channels   # makes docs/benchmarks/image_channels.md

Each case is a quantized image, a Conv and a MaxPool in integers, in onnxruntime on one thread. The
channel is added as ``onnx_cgmq/writing/image_channels.py`` adds it, whether or not the writer would
(``onnx_cgmq/gating/image_channels.py``). Outputs must be equal.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime

from onnx_cgmq.api.benchmark import Timing, bench
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.writing.image_channels import add_image_channels
from tools.bench.deploy import processor

TABLE: Final = Path("docs/benchmarks/image_channels.md")
_ROUNDS: Final = 50


@dataclass(frozen=True)
class Case:
    """A Conv of an image with three channels.

    Attributes:
        outputs: Output channels.
        kernel: Height and width of the kernel.
        stride: Its stride.
        size: Height and width of the image.
    """

    outputs: int
    kernel: int
    stride: int
    size: int


CASES: Final = (
    Case(16, 3, 1, 32),
    Case(64, 3, 1, 32),
    Case(32, 3, 2, 224),
    Case(24, 3, 2, 96),
    Case(12, 3, 2, 96),
    Case(96, 4, 4, 224),
    Case(32, 5, 1, 64),
    Case(64, 7, 2, 224),
    Case(32, 8, 8, 128),
    Case(16, 9, 1, 64),
    Case(64, 11, 4, 224),
    Case(192, 16, 16, 224),
    Case(16, 1, 1, 64),
)


def build(case: Case) -> ir.Model:
    """The convolution in integers, without the channel of zeros."""
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[1,3,{case.size},{case.size}] x) => (float[1,{case.outputs},h,w] y)
    <float s = {{0.02}}, uint8 z = {{110}}, int8 zw = {{0}}, float t = {{0.1}}, uint8 zt = {{0}}>
    {{
        q = QuantizeLinear(x, s, z)
        image = DequantizeLinear(q, s, z)
        weight = DequantizeLinear(w, s, zw)
        c = Conv<pads=[{", ".join([str(case.kernel // 2)] * 4)}],
                 strides=[{case.stride}, {case.stride}]>(image, weight)
        r = QuantizeLinear(c, t, zt)
        d = DequantizeLinear(r, t, zt)
        m = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(d)
        p = QuantizeLinear(m, t, zt)
        y = DequantizeLinear(p, t, zt)
    }}"""
    proto = onnx.parser.parse_model(text)
    shape = (case.outputs, 3, case.kernel, case.kernel)
    weight = np.random.default_rng(0).integers(-64, 65, shape).astype(np.int8)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def measure(case: Case, folder: Path, rounds: int = _ROUNDS) -> tuple[Timing, Timing]:
    """Times the case without and with the channel, and checks that the outputs are equal."""
    paths = [folder / f"{name}.onnx" for name in ("plain", "padded")]
    for path in paths:
        model = build(case)
        if path.stem == "padded":
            add_image_channels(model.graph, [n for n in model.graph if n.op_type == "Conv"])
        save_model(model, path)
    images = np.random.default_rng(1).normal(size=(2, 3, case.size, case.size))
    timed = bench(paths, {"x": images.astype(np.float32)}, rounds=rounds, round_seconds=0.01)
    plain, padded = timed.timings
    if padded.max_difference != 0:
        raise SystemExit(f"{case}: the outputs differ by {padded.max_difference}")
    return plain, padded


def table(rows: list[tuple[Case, tuple[Timing, Timing]]]) -> str:
    """The page of the docs."""
    lines = [
        "# A fourth channel for images",
        "",
        "Made by `python -m tools.measure.image_channels`; do not edit.",
        "",
        "onnxruntime has a fast integer kernel for convolutions whose input channels come in fours "
        "and whose output channels come in eights. So the first convolution of an image with three "
        "channels is written with a channel of zeros more, where that is faster: with output "
        "channels in eights, and kernels of more than one and at most 49 places. The outputs are "
        "equal.",
        "",
        f"onnxruntime {onnxruntime.__version__}, {processor()}, one thread, medians of {_ROUNDS} "
        "interleaved rounds; each case is the quantized image, the Conv and a MaxPool.",
        "",
        "| kernel | stride | image | output channels | 3 channels | 4 channels | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, (plain, padded) in rows:
        lines.append(
            f"| {case.kernel} x {case.kernel} | {case.stride} | {case.size} x {case.size} "
            f"| {case.outputs} | {plain.milliseconds:.3f} ms | {padded.milliseconds:.3f} ms "
            f"| {padded.ratio / plain.ratio:.2f} x |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measures all cases, and writes the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [(case, measure(case, Path(folder))) for case in CASES]
    TABLE.write_text(table(rows), encoding="utf-8")
    print(TABLE)


if __name__ == "__main__":
    main()
