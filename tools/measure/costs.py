"""Measures what a multiply-accumulate costs in onnxruntime for every pair of widths.

Convolutions (64 to 64 channels, 3 x 3, on 28 x 28) are written at each pair as they are deployed,
and timed beside the float ones in interleaved rounds. Prints the ``[cost]`` table of a target, in
nanoseconds. A pair that came out cheaper than a narrower one gets the cost of that one: a table
must be monotone, and the difference is noise.

    python -m tools.measure.costs --widths 2,4,8 --activation-widths 8 >> mine.toml
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

import onnx_cgmq as cgmq
from onnx_cgmq.api.benchmark import bench
from onnx_cgmq.data import open_data
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.preparation.prepare import prepare

CHANNELS, SIZE, KERNEL = 64, 28, 3
FLOAT = "float.onnx"


def main() -> None:
    arguments = _arguments()
    rows, columns = _widths(arguments.widths), _widths(arguments.activation_widths)
    with tempfile.TemporaryDirectory() as folder:
        paths = {pair: _write(Path(folder), *pair) for pair in _pairs(rows, columns)}
        reference = Path(folder) / FLOAT
        save_model(prepare(_convolution()), reference)
        timed = bench([reference, *paths.values()], threads=1, rounds=arguments.rounds)
        macs = cgmq.inspect(reference).macs
    cost = [1e6 * timing.milliseconds / macs for timing in timed.timings]
    print(_table(rows, columns, cost[0], np.array(cost[1:]).reshape(len(rows), len(columns))))


def _pairs(rows: Sequence[int], columns: Sequence[int]) -> list[tuple[int, int]]:
    return [(weight, activation) for weight in rows for activation in columns]


def _write(folder: Path, weight: int, activation: int) -> Path:
    """The convolution with one width for weights and one for activations."""
    model = prepare(_convolution())
    gated = cgmq.insert_gates(model, widths=(weight,), activation_widths=(activation,))
    mirror = cgmq.Mirror(gated)
    cgmq.calibrate(mirror, open_data({"x": _random(8, CHANNELS, SIZE, SIZE)}, model))
    path = folder / f"{weight}x{activation}.onnx"
    save_model(cgmq.write_back(gated, mirror.plan()), path)
    return path


def _convolution() -> ir.Model:
    """Two of them, so that the first one's output is quantized too, as inside of a network."""
    shape: list[str | int | None] = ["n", CHANNELS, SIZE, SIZE]
    nodes = [
        helper.make_node("Conv", [x, w], [y], name=y, pads=[KERNEL // 2] * 4)
        for x, w, y in (("x", "w", "h"), ("h", "v", "y"))
    ]
    weights = [
        onnx.numpy_helper.from_array(_random(CHANNELS, CHANNELS, KERNEL, KERNEL), name)
        for name in "wv"
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        weights,
    )
    opsets = [helper.make_opsetid("", 21)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def _table(
    rows: Sequence[int], columns: Sequence[int], float_cost: float, costs: np.ndarray
) -> str:
    monotone = np.maximum.accumulate(np.maximum.accumulate(costs, axis=0), axis=1)
    lines = [
        "[cost]",
        'unit = "ns"',
        f"float = {max(float_cost, monotone.max()):.4g}",
        f"activations = {list(columns)}",
        "[cost.weights]",
    ]
    for width, row in zip(rows, monotone, strict=True):
        lines.append(f"{width} = [{', '.join(f'{cost:.4g}' for cost in row)}]")
    return "\n".join(lines)


def _widths(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="2,4,8", help="of weights")
    parser.add_argument("--activation-widths", default="8")
    parser.add_argument("--rounds", type=int, default=25)
    return parser.parse_args()


if __name__ == "__main__":
    main()
