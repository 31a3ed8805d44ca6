"""Measures what a multiply-accumulate costs in onnxruntime for every pair of widths.

Two convolutions in a row are written at each pair as they are deployed, and timed beside the float
ones in interleaved rounds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_cgmq.api.benchmark import bench
from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.contract.form import Form
from onnx_cgmq.data import open_data
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings import Target, TargetLike, load_target
from onnx_cgmq.settings.cost_table import CostTable
from onnx_cgmq.writing.write_back import write_back

_UNIT = "ns"
_NANOSECONDS = 1e6  # in a millisecond
_DIGITS = 4  # significant ones; timing has no more


@dataclass(frozen=True)
class Layer:
    """The convolution that is timed: as many output as input channels, padded to keep its size."""

    channels: int = 64
    size: int = 28
    kernel: int = 3


TYPICAL_LAYER = Layer()


def measure_costs(
    target: TargetLike = "ort-cpu",
    *,
    widths: Sequence[int] | None = None,
    activation_widths: Sequence[int] | None = None,
    rounds: int = 25,
    layer: Layer = TYPICAL_LAYER,
    progress: Callable[[str], None] | None = None,
) -> CostTable:
    """Measures the cost table of a target in onnxruntime, on this machine.

    A pair of widths that came out cheaper than a narrower one gets the cost of that one: a table
    must be monotone, and the difference is noise.

    Args:
        target: What the layer is quantized for: name of a target, path of a TOML file, or a target.
        widths: Widths of weights, the rows of the table; by default those of the target.
        activation_widths: Widths of activations, the columns; by default those of the target.
        rounds: Interleaved rounds of timing.
        layer: The layer to time.
        progress: Called with a line of text at every step.

    Returns:
        The table, in nanoseconds for one multiply-accumulate.

    Raises:
        ConfigError: There is no such target, it does not allow a width, or a number is wrong.
    """
    chosen = load_target(target)
    rows = _below_float(widths or chosen.weights.widths, "weights")
    columns = _below_float(activation_widths or chosen.activations.widths, "activations")
    say = progress or (lambda line: None)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "float.onnx"
        save_model(prepare(_convolutions(layer)), reference)
        paths = [reference]
        for row in rows:
            for column in columns:
                say(f"writing a layer of {row}-bit weights and {column}-bit activations")
                paths.append(Path(folder) / f"{row}x{column}.onnx")
                save_model(_quantized(layer, row, column, chosen), paths[-1])
        say(f"timing {len(paths)} files in {rounds} rounds")
        timings = bench(paths, rounds=rounds).timings
        macs = inspect(reference).macs
    float_cost, *costs = (timing.milliseconds * _NANOSECONDS / macs for timing in timings)
    return _table(rows, columns, float_cost, np.reshape(costs, (len(rows), len(columns))))


def _below_float(widths: Sequence[int], what: str) -> tuple[int, ...]:
    """The widths to measure, ascending.

    Raises:
        ConfigError: There are none.
    """
    below = sorted(set(widths) - {FLOAT_BITS})  # float is measured in any case
    if not below:
        raise ConfigError(f"{what}: no width below {FLOAT_BITS} bits to measure; give some")
    return tuple(below)


def _quantized(layer: Layer, weight: int, activation: int, target: Target) -> ir.Model:
    """The convolutions with one width for weights and one for activations."""
    gated = insert_gates(
        prepare(_convolutions(layer)),
        target=target,
        form=Form.ORT,
        widths=(weight,),
        activation_widths=(activation,),
    )
    mirror = Mirror(gated)
    shape = (8, layer.channels, layer.size, layer.size)
    calibrate(mirror, open_data({"x": _random(shape)}, gated))
    return write_back(gated, mirror.plan())


def _convolutions(layer: Layer) -> ir.Model:
    """Two of them, so that the first one's output is quantized too, as inside of a network."""
    shape: list[str | int | None] = ["n", layer.channels, layer.size, layer.size]
    nodes = [
        helper.make_node("Conv", [x, w], [y], name=y, pads=[layer.kernel // 2] * 4)
        for x, w, y in (("x", "w", "h"), ("h", "v", "y"))
    ]
    kernel = _random((layer.channels, layer.channels, layer.kernel, layer.kernel))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(kernel, name) for name in "wv"],
    )
    opsets = [helper.make_opsetid("", 21)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def _random(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def _table(
    rows: Sequence[int], columns: Sequence[int], float_cost: float, costs: npt.NDArray[Any]
) -> CostTable:
    monotone = np.maximum.accumulate(np.maximum.accumulate(costs, axis=0), axis=1)
    return CostTable(
        unit=_UNIT,
        float=_price(max(float_cost, monotone.max())),
        activations=tuple(columns),
        weights={width: tuple(map(_price, row)) for width, row in zip(rows, monotone, strict=True)},
    )


def _price(cost: float) -> Fraction:
    return Fraction(f"{cost:.{_DIGITS}g}")
